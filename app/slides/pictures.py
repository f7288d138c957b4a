"""How does a tile of a slide's picture come about, whatever levels the slide's file has?

The coarsest level that is fine enough is read and averaged down; tiles laid together are the whole level. A file
without coarser levels is read in strips, up to a bound: it can be shown, if slowly, in memory that does not grow.
"""

from __future__ import annotations

from math import ceil

import cv2
import numpy as np

from app.nuclei.errors import PayloadTooLarge
from app.nuclei.types import UInt8
from app.slides.pyramid import PyramidTile
from app.slides.regions import Grid, choose_level, read_window
from app.slides.sources import Level, Source

QUALITY = 85  # of JPEG; nuclei keep their edges, and a tile has some 20 kB
MAX_PIXELS = 2**28  # read for one tile: seconds, in strips
STRIP_PIXELS = 2**23


def jpeg(source: Source, tile: PyramidTile) -> bytes:
    """A tile of the picture; raises as `pixels`."""
    bgr = cv2.cvtColor(pixels(source, tile), cv2.COLOR_RGB2BGR)
    written, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not written:
        raise RuntimeError("OpenCV could not write a JPEG")
    return data.tobytes()


def pixels(source: Source, tile: PyramidTile) -> UInt8:
    """(height, width, 3) uint8 RGB of a tile of the picture.

    Raises:
        PayloadTooLarge: if too many pixels would have to be read, as the file has no coarser level.
        InvalidImage: if the pixels there are damaged.
    """
    number = choose_level(source.levels, tile.reduction, tile.reduction)
    level = source.levels[number]
    steps = tile.reduction / level.scale_x, tile.reduction / level.scale_y
    if tile.width * steps[0] * tile.height * steps[1] > MAX_PIXELS:
        raise PayloadTooLarge("the slide has no level coarse enough to be shown from so far; save it with a pyramid")
    # A level whose remainder the scanner cut off may end before the last pixel: that one is repeated then.
    width, height = (min(side, ceil(length / step)) for side, length, step in zip(
        (tile.x + tile.width, tile.y + tile.height), (level.width, level.height), steps, strict=True))  # fmt: skip
    grid = Grid(number, width, height, tile.reduction, tile.reduction, *steps)
    found = _strips(source, grid, tile, level)
    missing = tile.height - found.shape[0], tile.width - found.shape[1]
    return np.pad(found, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge") if any(missing) else found


def _strips(source: Source, grid: Grid, tile: PyramidTile, level: Level) -> UInt8:
    x, y = min(tile.x, grid.width - 1), min(tile.y, grid.height - 1)
    width, height = grid.width - x, grid.height - y
    rows = max(1, int(STRIP_PIXELS / (width * grid.step_x * grid.step_y)))
    strips = [
        read_window(source, grid, x, top, width, min(rows, y + height - top)) for top in range(y, y + height, rows)
    ]
    return np.concatenate(strips)
