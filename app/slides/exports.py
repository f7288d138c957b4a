"""How do all nuclei of a slide leave, in memory that does not grow with them?

Tile by tile in reading order. What is said of them together stands at the end, counted from what was written: a job may
have added tiles meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from app.formats import dicom, hovernet, table
from app.formats.document import NOTICE
from app.formats.parquet import Writer
from app.formats.raster import fill
from app.nuclei.errors import NotDicom
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Float64, Int64, Mpp, Nuclei, Rings
from app.slides import documents, seams
from app.slides.database import Database
from app.slides.reading import walk
from app.slides.records import Slide, TileNuclei
from app.slides.summary import summary

if TYPE_CHECKING:
    from app.slides.dicomresults import Results

ROW_GROUP = 65_536
KEYS = ("total", "counts", "composition_224", "density_per_mm2", "tumour_burden", "tumour_burden_reason")


@dataclass
class Export:
    """One export.

    Attributes:
        database: of the store.
        slide: whose nuclei.
        why_no_burden: why epithelium does not stand for tumour; None if it does.
        file: where the slide's file lies, or a refusal; asked by formats that refer to it.
    """

    database: Database
    slide: Slide
    why_no_burden: str | None
    file: Callable[[], Path] | None = None
    mpp: Mpp | None = field(init=False)
    written: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.mpp = documents.scale(self.database, self.slide)
        self.written = np.zeros(1 + len(NAMES), np.int64)

    def parts(self) -> Iterator[TileNuclei]:
        """Tiles with nuclei, in reading order; counts them."""
        for part in walk(self.database, self.slide.id):
            self.written += np.bincount(part.nuclei.type, minlength=len(self.written))
            if len(part.nuclei):
                yield part

    def opening(self) -> dict[str, Any]:
        """What is known before the first nucleus."""
        return {
            "notice": NOTICE,
            "coordinate_space": documents.coordinate_space(self.slide, self.mpp),
            "provenance": documents.provenance(self.database, self.slide),
        }

    def closing(self) -> dict[str, Any]:
        """What the nuclei that were written add up to."""
        said = summary(self.database, self.slide, None, self.why_no_burden)
        counts = dict(zip(NAMES, self.written[1:].tolist(), strict=True))
        if said["counts"] != counts or said["total"] != int(self.written.sum()):  # tiles came meanwhile
            reason = "the slide changed while it was written"
            said |= {"density_per_mm2": None, "tumour_burden": None, "tumour_burden_reason": reason}
            said |= {"total": int(self.written.sum()), "counts": counts}
        return {"summary": {key: said[key] for key in KEYS}, "qc": said["qc"]}


def as_geojson(export: Export) -> Iterator[bytes]:
    """A FeatureCollection as QuPath reads it."""
    yield orjson.dumps({"type": "FeatureCollection", **export.opening()})[:-1] + b',"features":['
    between = b""
    for part in export.parts():
        yield between + documents.features(export.slide, export.mpp, part)
        between = b","
    yield b"]," + orjson.dumps(export.closing())[1:]


def as_hovernet(export: Export) -> Iterator[bytes]:
    """The JSON of hover_net; numbers run through the slide."""
    mag = hovernet.mag(export.mpp) if export.mpp else None
    opening = export.opening()
    yield b'{"mag":%b,"nuc":{' % orjson.dumps(mag)
    number = 0
    for part in export.parts():
        entries = []
        for entry in hovernet_entries(part):
            number += 1
            entries.append(b'"%d":%b' % (number, orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY)))
        yield (b"," if number > len(entries) else b"") + b",".join(entries)
    yield b'},"karyon":%b}' % orjson.dumps(opening | export.closing())


def as_csv(export: Export) -> Iterator[bytes]:
    """The table, header first."""
    yield table.HEADER
    for part in export.parts():
        ids = documents.ids_of(export.slide, part)
        yield table.rows(ids, part.nuclei, figures(export.slide, export.mpp, part))


def as_parquet(export: Export) -> Iterator[bytes]:
    """GeoParquet; raises MissingExtra before the first piece."""
    writer, opening = Writer(), export.opening()
    yield writer.pieces()
    for together in _grouped(export.parts()):
        nuclei = _joined([part.nuclei for part in together])
        ids = np.concatenate([documents.ids_of(export.slide, part) for part in together])
        columns = [figures(export.slide, export.mpp, part) for part in together]
        writer.write(ids, nuclei, {name: np.concatenate([each[name] for each in columns]) for name in columns[0]})
        yield writer.pieces()
    yield writer.finish(opening | export.closing())


def as_dicom_ann(export: Export) -> Iterator[bytes]:
    """DICOM annotations; raises before the first piece, as `dicom_results` and `Results.annotations`."""
    yield from dicom_results(export).annotations()


def as_dicom_seg(export: Export) -> Iterator[bytes]:
    """A DICOM segmentation; raises before the first piece, as `dicom_results` and `Results.segmentation`."""
    yield from dicom_results(export).segmentation()


def as_dicom_sr(export: Export) -> Iterator[bytes]:
    """A DICOM report; raises before the first piece, as `dicom_results` and `Results.report`."""
    yield from dicom_results(export).report()


def dicom_results(export: Export) -> Results:
    """What DICOM objects of a slide are made from.

    Raises:
        NotDicom: if the slide is none.
        MissingExtra: if the extra is not installed.
        Refusal: as `export.file`.
    """
    if export.slide.vendor != "dicom" or export.file is None:
        raise NotDicom(dicom.NO_DICOM)
    dicom.check_installed()
    from app.slides.dicomresults import Results  # noqa: PLC0415 - optional, and seconds to import

    return Results(export.database, export.slide, export.file())


WRITERS: dict[str, Callable[[Export], Iterator[bytes]]] = {
    "geojson": as_geojson,
    "hovernet": as_hovernet,
    "csv": as_csv,
    "parquet": as_parquet,
    "dicom-ann": as_dicom_ann,
    "dicom-seg": as_dicom_seg,
    "dicom-sr": as_dicom_sr,
}


def figures(slide: Slide, mpp: Mpp | None, part: TileNuclei) -> dict[str, Float64]:
    """The columns of the table; stains stay empty, as the store keeps no pixels.

    `touches_border` is 1 where the border of the slide, or the edge of a tile without margin, cuts the nucleus.
    """
    scale, nuclei = mpp or documents.PIXELS, part.nuclei
    step_um = np.sqrt(part.step[0] * scale.x * part.step[1] * scale.y)
    lattice = nuclei.rings.points / part.step - _corner(part)
    left, top = np.floor(lattice.min(axis=0)).astype(np.int64).tolist()
    right, bottom = np.ceil(lattice.max(axis=0)).astype(np.int64).tolist()
    grid = fill(lattice, nuclei.rings.offsets, left, top, right - left, bottom - top)
    perimeter_um = table.perimeter(grid, len(nuclei)) * step_um
    at_border = (nuclei.bbox[:, :2] <= 0).any(axis=1) | (nuclei.bbox[:, 2:] >= (slide.width, slide.height)).any(axis=1)
    touches = ((part.flags & seams.CUT) > 0) | at_border
    return table.figures_of(nuclei, scale, perimeter_um, touches.astype(np.float64), None)


def hovernet_entries(part: TileNuclei) -> Iterator[dict[str, Any]]:
    """What hover_net writes of each nucleus of a tile, in pixels of the slide."""
    nuclei = part.nuclei
    low = np.floor(nuclei.bbox[:, :2].min(axis=0)).astype(np.int64)
    width, height = (np.ceil(nuclei.bbox[:, 2:].max(axis=0)).astype(np.int64) - low).tolist()
    left, top = low.tolist()
    pixels = fill(nuclei.rings.points, nuclei.rings.offsets, left, top, width, height)
    return hovernet.entries(pixels, nuclei, (left, top))


def _corner(part: TileNuclei) -> Float64:
    """The tile's corner on its own grid, so that rings lie on whole numbers."""
    return np.array([part.tile.place.x, part.tile.place.y]) / part.step


def _grouped(parts: Iterable[TileNuclei]) -> Iterator[list[TileNuclei]]:
    """As many tiles together as a row group of a file should hold."""
    group: list[TileNuclei] = []
    for part in parts:
        group.append(part)
        if sum(len(each.nuclei) for each in group) >= ROW_GROUP:
            yield group
            group = []
    if group:
        yield group


def _joined(parts: list[Nuclei]) -> Nuclei:
    names = ("id", "type", "type_prob", "class_probs", "centroid", "bbox", "area", "covariance")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    lengths = np.concatenate([np.diff(part.rings.offsets) for part in parts])
    points = np.concatenate([part.rings.points for part in parts])
    return Nuclei(**columns, rings=Rings(points, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)))
