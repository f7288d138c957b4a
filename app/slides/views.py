"""What does a viewer ask of a slide, and what is kept ready for it?

Everything here reads. A slide's content has a version that changes with every tile that is kept, so whoever holds an
answer can ask whether it still holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from app import __version__
from app.slides.database import Database
from app.slides.handles import Handles
from app.slides.library import Library
from app.slides.overlays import overlay_png
from app.slides.pictures import jpeg
from app.slides.places import Box
from app.slides.pyramid import Pyramid, PyramidTile
from app.slides.recent import Recent
from app.slides.records import Slide, TileNuclei
from app.slides.viewing import Decoded, viewport


@dataclass(frozen=True)
class Views:
    """Pictures and viewports of slides.

    Attributes:
        library: slides and their files.
        opened: nuclei of tiles that were opened lately.
        drawn: tiles of overlays that were drawn lately, by version.
        handles: slide files that are open.
        outlines_to: level-0 pixels per pixel up to which outlines are drawn, and density beyond.
        most_nuclei: sent of one viewport.
    """

    library: Library
    opened: Recent[Decoded]
    drawn: Recent[bytes]
    handles: Handles
    outlines_to: int
    most_nuclei: int

    @property
    def database(self) -> Database:
        """Of the store."""
        return self.library.store.database

    @classmethod
    def of(cls, library: Library, cache_bytes: int, outlines_to: int, most_nuclei: int) -> Self:
        """With empty caches, which take `cache_bytes` together at most."""
        opened: Recent[Decoded] = Recent(cache_bytes * 3 // 4)
        drawn: Recent[bytes] = Recent(cache_bytes // 4)
        return cls(library, opened, drawn, Handles(library), outlines_to, most_nuclei)

    def overlay(self, slide: Slide, tile: PyramidTile, classes: Collection[int] | None) -> bytes:
        """A tile of the overlay as PNG."""
        wanted = None if classes is None else tuple(sorted(classes))
        key = (version(slide), tile, wanted)
        if (known := self.drawn.get(key)) is not None:
            return known
        picture = overlay_png(self.database, slide, tile, classes, self.outlines_to, self.opened)
        self.drawn.put(key, picture, len(picture))
        return picture

    def picture(self, slide: Slide, tile: PyramidTile) -> bytes:
        """A tile of the slide itself as JPEG.

        Raises:
            Refusal: as `Library.open` and `pictures.pixels`.
        """
        with self.handles.lent(slide) as source:
            return jpeg(source, tile)

    def nuclei(self, slide: Slide, box: Box, classes: Collection[int] | None) -> list[TileNuclei]:
        """The nuclei of a viewport; see `viewing.viewport`."""
        return viewport(self.database, slide.id, box, self.most_nuclei, classes, self.opened)

    def forget(self, slide_id: str) -> None:
        """Let go of a slide that was deleted."""
        self.handles.forget(slide_id)

    def close(self) -> None:
        """Close every slide file."""
        self.handles.close()


def pyramid(slide: Slide) -> Pyramid:
    """The levels that picture and overlay share."""
    return Pyramid(slide.width, slide.height)


def version(slide: Slide) -> str:
    """Digest of what a slide holds: it changes when a tile is kept or the scale is said, and with the service."""
    content = (slide.id, slide.tile_bytes, slide.touched_ms, slide.mpp, slide.model, __version__)
    return hashlib.sha256(repr(content).encode()).hexdigest()
