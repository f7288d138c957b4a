"""Where on a slide is tissue, so that nobody spends hours on glass?

The slide is looked at once with 8 um a pixel, from the coarsest level that is fine enough. Faint rims and single cells
that one such pixel dilutes are kept by taking two pixels around all that is stained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from app.nuclei.qc import stained
from app.nuclei.types import Mpp, UInt8
from app.slides.places import Box
from app.slides.regions import Grid, grid_at, read_window
from app.slides.sources import Source

MASK_MPP = 8.0
AROUND = 2  # mask pixels around tissue that count as tissue
PIECE = 2048  # pixels of the level that are read at once along a side


@dataclass(frozen=True, slots=True)
class Tissue:
    """Tissue in a part of a slide.

    Attributes:
        mask: (h, w) bool.
        x, y: of its corner, in its own pixels.
        grid: of the slide at the mask's scale.
    """

    mask: npt.NDArray[np.bool_]
    x: int
    y: int
    grid: Grid

    def meets(self, box: Box) -> bool:
        """Whether there is tissue in a box of level-0 pixels."""
        cols = slice(int(box.x0 / self.grid.scale_x) - self.x, -int(-box.x1 // self.grid.scale_x) - self.x)
        rows = slice(int(box.y0 / self.grid.scale_y) - self.y, -int(-box.y1 // self.grid.scale_y) - self.y)
        return bool(self.mask[_positive(rows), _positive(cols)].any())


def find_tissue(source: Source, mpp: Mpp, region: Box) -> Tissue:
    """Look for tissue in a region.

    Args:
        source: an opened slide.
        mpp: of its level 0.
        region: level-0 pixels; a patch beside it is looked at as well.

    Raises:
        InvalidImage: if pixels of the slide are damaged.
    """
    grid = grid_at(source, mpp, max(MASK_MPP, mpp.x, mpp.y))
    x0, x1 = _limits(region.x0, region.x1, grid.scale_x, grid.width)
    y0, y1 = _limits(region.y0, region.y1, grid.scale_y, grid.height)
    image: UInt8 = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    for top, height in _pieces(y0, y1, grid.step_y):
        for left, width in _pieces(x0, x1, grid.step_x):
            piece = read_window(source, grid, left, top, width, height)
            image[top - y0 : top - y0 + height, left - x0 : left - x0 + width] = piece
    found = stained(image).astype(np.uint8)
    grown = cv2.dilate(found, np.ones((2 * AROUND + 1, 2 * AROUND + 1), np.uint8))
    return Tissue(np.asarray(grown, np.bool_), x0, y0, grid)


def _limits(low: float, high: float, scale: float, length: int) -> tuple[int, int]:
    first = min(max(0, int(low / scale) - AROUND), length - 1)
    return first, max(first + 1, min(length, -int(-high // scale) + AROUND))


def _pieces(low: int, high: int, step: float) -> Iterator[tuple[int, int]]:
    side = max(1, int(PIECE / max(1.0, step)))
    for start in range(low, high, side):
        yield start, min(side, high - start)


def _positive(part: slice) -> slice:
    return slice(max(0, part.start), max(0, part.stop))
