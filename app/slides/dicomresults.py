"""How do the results of a slide become DICOM objects? Needs the extra `dicom`.

An object's UID names what it was made of before the first nucleus is read, so an object is given out only if the slide
has not changed until the last one: the same UID is always the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from app import __version__
from app.formats.dicom import NO_DICOM, Origin
from app.formats.dicomann import Annotations
from app.formats.dicomparts import encoded, pieces, source_image
from app.formats.dicomseg import Labels, check_placed
from app.formats.dicomsr import report
from app.nuclei.errors import Conflict, NotDicom, NotFound
from app.nuclei.taxonomy import CLASSES
from app.slides import documents
from app.slides.database import Database
from app.slides.opening import open_source
from app.slides.reading import totals, walk
from app.slides.records import Slide
from app.slides.regions import required
from app.slides.schema import COUNTS, tiles
from app.slides.wsm import level0

NOTHING_YET = "nothing of this slide was analysed yet"


def check_source(path: Path, kinds: Collection[str]) -> None:
    """Refuse, before a slide is analysed, what could not be written of it afterwards.

    Args:
        path: of the slide's file or folder.
        kinds: that are wanted, of `app.formats.dicom.KINDS`.

    Raises:
        NotDicom: if the slide is none.
        InvalidImage: as `level0`, `source_image` and `check_placed`.
        Refusal: as `open_source`.
    """
    with open_source(path) as source:
        if source.vendor != "dicom":
            raise NotDicom(NO_DICOM)
        found = level0(path, source.levels[0].width, source.levels[0].height)
    image = source_image(found.image)
    if "seg" in kinds:
        check_placed(image)


@dataclass(frozen=True)
class Results:
    """What one slide's objects are made from.

    Attributes:
        database: of the store.
        slide: that came as DICOM.
        path: of its file or folder.
    """

    database: Database
    slide: Slide
    path: Path

    def annotations(self) -> Iterator[bytes]:
        """The outlines, see `dicomann`; the first piece comes when all is done.

        Raises:
            NotFound: if there are no nuclei.
            Refusal: as `_origin` and `Annotations`.
        """
        origin = self._origin()
        made = Annotations(origin)
        for part in walk(self.database, self.slide.id):
            if len(part.nuclei):
                made.add(part.nuclei)
        self._check_unchanged(origin)
        yield from pieces(encoded(made.finish()))

    def segmentation(self) -> Iterator[bytes]:
        """The class of every pixel, see `dicomseg`; the first piece comes when all is done.

        Raises:
            Refusal: as `_origin` and `Labels`.
        """
        origin = self._origin()
        with closing(Labels(origin)) as made:
            for part in walk(self.database, self.slide.id):  # tiles come from top to bottom
                made.add(part.nuclei, part.tile.place.y)
            self._check_unchanged(origin)
            yield from pieces(made.finish())

    def report(self) -> Iterator[bytes]:
        """Counts and densities, see `dicomsr`.

        Raises:
            Refusal: as `_origin` and `report`.
        """
        origin = self._origin()
        found = totals(self.database, self.slide.id)
        counts = {c.id: count for c, count in zip(CLASSES, found.counts, strict=True)}
        if left := found.counted - sum(found.counts):
            counts[0] = left
        self._check_unchanged(origin)
        yield from pieces(encoded(report(origin, counts, found.area * origin.mpp.x * origin.mpp.y / 1e6)))

    def _origin(self) -> Origin:
        """Where the results come from.

        Raises:
            NotFound: if there are none.
            MppRequired: if tiles were analysed without a scale.
            InvalidImage: as `level0`.
        """
        digest, made_ms = self._tiles()
        slide = self.slide
        if made_ms is None or slide.model is None:
            raise NotFound(NOTHING_YET)
        service = documents.provenance(self.database, slide).get("service", {})
        source = level0(self.path, slide.width, slide.height)
        return Origin(
            image=source.image,
            header_sha256=source.header_sha256,
            model=slide.model.name,
            model_version=slide.model.version,
            model_sha256=slide.model.sha256,
            config_sha256=slide.model.config_sha256,
            profile=slide.model.profile,
            mpp=required(documents.scale(self.database, slide)),
            made=datetime.fromtimestamp(made_ms / 1000, UTC),
            tiles_sha256=digest,
            service_version=service.get("version", __version__),
            revision=service.get("revision", "unknown"),
        )

    def _tiles(self) -> tuple[str, int | None]:
        """Digest of the tiles and of what they answer for, and when the last of them came."""
        t = tiles.c
        said = (t.x, t.y, t.width, t.height, t.content_sha256, t.counted, t.cut, *(t[name] for name in COUNTS))
        query = select(*said, t.created_ms).where(t.slide_id == self.slide.id).order_by(t.y, t.x, t.id)
        digest, last = hashlib.sha256(), None
        with self.database.read() as connection:
            for row in connection.execute(query):
                digest.update(repr(tuple(row[:-1])).encode())
                last = max(last or 0, row.created_ms)
        return digest.hexdigest(), last

    def _check_unchanged(self, origin: Origin) -> None:
        if self._tiles()[0] != origin.tiles_sha256:
            raise Conflict("the slide changed while it was read: ask again when its job is done")
