"""What does a viewer lay over a tile of the slide: outlines when close, density when far?"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import cv2
import numpy as np

from app.formats.heat import GROW, PAD, heat
from app.formats.lines import Shapes, draw
from app.nuclei.types import UInt8
from app.slides.database import Database
from app.slides.density import CELL, Cells
from app.slides.pyramid import PyramidTile
from app.slides.recent import Recent
from app.slides.records import Slide
from app.slides.viewing import Decoded, density, viewport

NEAREST_DENSITY = CELL // GROW
"""Level-0 pixels per pixel from which on density can be shown."""
ASSUMED_MPP = 0.5  # of a slide whose scale nobody said: only the strength of the density rests on it
_REACH = 4  # pixels of the level around the tile from which a line or rim may reach into it


def overlay_png(
    database: Database,
    slide: Slide,
    tile: PyramidTile,
    classes: Collection[int] | None,
    outlines_to: int,
    recent: Recent[Decoded],
) -> bytes:
    """A tile of the overlay.

    Args:
        database: of the store.
        slide: whose nuclei.
        tile: of the slide's pyramid.
        classes: ids of the classes that are shown; all, the open one (0) too, if None.
        outlines_to: level-0 pixels per pixel up to which outlines are drawn; at least half of `NEAREST_DENSITY`.
        recent: tiles of nuclei that were opened lately.

    Returns:
        PNG, RGBA, transparent where nothing is.
    """
    picture = (
        _outlined(database, slide, tile, classes, recent)
        if tile.reduction <= outlines_to
        else _heated(database, slide, tile, classes)
    )
    return blank(tile.width, tile.height) if picture is None or not picture[..., 3].any() else _png(picture)


@lru_cache(maxsize=1024)
def blank(width: int, height: int) -> bytes:
    """A transparent PNG."""
    return _png(np.zeros((height, width, 4), np.uint8))


def _outlined(
    database: Database, slide: Slide, tile: PyramidTile, classes: Collection[int] | None, recent: Recent[Decoded]
) -> UInt8 | None:
    box = tile.box.grown(_REACH * tile.reduction)
    seen = viewport(database, slide.id, box, None, classes, recent)
    shapes = [Shapes(each.nuclei.rings, each.nuclei.type, each.step) for each in seen]
    return draw(shapes, tile.reduction, tile.x, tile.y, tile.width, tile.height) if shapes else None


def _heated(database: Database, slide: Slide, tile: PyramidTile, classes: Collection[int] | None) -> UInt8 | None:
    side = GROW * tile.reduction  # of a cell; a whole number of those of the store
    columns, rows = -(-tile.width // GROW) + 2 * PAD, -(-tile.height // GROW) + 2 * PAD
    counts = density(database, slide.id, Cells(tile.x // GROW - PAD, tile.y // GROW - PAD, columns, rows, side))
    if classes is not None:
        counts[[kind for kind in range(len(counts)) if kind not in classes]] = 0
    if not counts.any():
        return None
    mpp_x, mpp_y = (slide.mpp.x, slide.mpp.y) if slide.mpp else (ASSUMED_MPP, ASSUMED_MPP)
    return heat(counts, side * side * mpp_x * mpp_y / 1e6)[: tile.height, : tile.width]


def _png(picture: UInt8) -> bytes:
    # Level 1: lines on a plain ground pack well anyway, and higher levels take several times as long.
    written, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not written:
        raise RuntimeError("OpenCV could not write a PNG")
    return data.tobytes()
