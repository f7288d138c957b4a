"""How does a slide look at a given number of um per pixel, window by window, as if it had been resampled as a whole?

A grid is the slide at one scale. A window is a box of whole grid pixels; each grid pixel has one footprint on the
slide, wherever the window begins, so windows laid together are the whole. The next finer level is read and averaged
down by area (OpenCV's INTER_AREA, with exact fractions at the rims); a grid finer than level 0 is interpolated
(INTER_LINEAR).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from scipy import sparse

from app.nuclei.errors import MppRequired
from app.nuclei.types import Float32, Mpp, UInt8
from app.slides.sources import Level, Source

SAME_SCALE = 0.02
"""As for tiles: a level within 2 % of the wanted scale is taken as it is, as resampling would blur more."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A slide at one scale.

    Attributes:
        level: that is read.
        width, height: of the slide in pixels of the grid.
        scale_x, scale_y: level-0 pixels per grid pixel; multiply grid positions by these to get slide positions.
        step_x, step_y: pixels of the level per grid pixel; exactly 1 if nothing is resampled.
    """

    level: int
    width: int
    height: int
    scale_x: float
    scale_y: float
    step_x: float
    step_y: float


def slide_mpp(requested: Mpp | float | None, own: tuple[float, float] | None) -> Mpp | None:
    """um per pixel of level 0: the caller's word, else the file's.

    Args:
        requested: what the caller said.
        own: what the file says, (x, y).

    Returns:
        With `conflict` set where both speak and differ by more than `SAME_SCALE`; None if neither speaks.

    Raises:
        InvalidParameter: if the request is not a finite number above 0.
    """
    if requested is None:
        return Mpp(*own, "file") if own else None
    asked = requested if isinstance(requested, Mpp) else Mpp(requested, requested)
    pairs = zip(own or (), (asked.x, asked.y), strict=False)
    return Mpp(asked.x, asked.y, "request", any(abs(theirs / ours - 1) > SAME_SCALE for theirs, ours in pairs))


def required(mpp: Mpp | None) -> Mpp:
    """The scale of a slide that is about to be analysed.

    Raises:
        MppRequired: if nobody said it.
    """
    if mpp is None:
        raise MppRequired("the slide's file does not say how large a pixel is: give mpp, in um per pixel of level 0")
    return mpp


def grid_at(source: Source, mpp: Mpp, wanted: float) -> Grid:
    """The slide at a wanted scale, from the coarsest level that is not coarser.

    Args:
        source: an opened slide.
        mpp: of its level 0.
        wanted: um per pixel of the grid.
    """
    factor_x, factor_y = wanted / mpp.x, wanted / mpp.y
    number = choose_level(source.levels, factor_x, factor_y)
    level = source.levels[number]
    if abs(factor_x / level.scale_x - 1) <= SAME_SCALE and abs(factor_y / level.scale_y - 1) <= SAME_SCALE:
        return Grid(number, level.width, level.height, level.scale_x, level.scale_y, 1.0, 1.0)
    width = max(1, round(level.width * level.scale_x / factor_x))
    height = max(1, round(level.height * level.scale_y / factor_y))
    step_x, step_y = level.width / width, level.height / height
    return Grid(number, width, height, step_x * level.scale_x, step_y * level.scale_y, step_x, step_y)


def choose_level(levels: tuple[Level, ...], factor_x: float, factor_y: float) -> int:
    """Index of the coarsest level with at most `factor` level-0 pixels a pixel (2 % tolerated), 0 if there is none."""
    fine = [
        number
        for number, level in enumerate(levels)
        if level.scale_x <= factor_x * (1 + SAME_SCALE) and level.scale_y <= factor_y * (1 + SAME_SCALE)
    ]
    return max(fine, key=lambda number: levels[number].scale_x, default=0)


def read_window(source: Source, grid: Grid, x: int, y: int, width: int, height: int) -> UInt8:
    """Pixels of a window.

    Args:
        source: an opened slide.
        grid: of that slide.
        x, y, width, height: a box inside the grid, in its pixels.

    Returns:
        (height, width, 3) uint8 RGB, equal to that part of the whole resampled slide.

    Raises:
        ValueError: if the box is empty or sticks out.
        InvalidImage: if the pixels there are damaged.
    """
    if not (width > 0 <= x and height > 0 <= y and x + width <= grid.width and y + height <= grid.height):
        raise ValueError(f"{width}x{height} at {x},{y} is not inside the grid of {grid.width}x{grid.height}")
    level = source.levels[grid.level]
    if grid.step_x == grid.step_y == 1:
        return source.read(grid.level, x, y, width, height)
    across, down = _weights(x, width, grid.step_x, level.width), _weights(y, height, grid.step_y, level.height)
    pixels = source.read(grid.level, across.first, down.first, across.matrix.shape[1], down.matrix.shape[1])
    return _weighted(pixels, down.matrix, across.matrix)


class _Weights(NamedTuple):
    """What each pixel of a window is made of, along one axis: matrix (window, pixels read), the first one read."""

    matrix: sparse.csr_matrix
    first: int


def _weights(start: int, count: int, step: float, length: int) -> _Weights:
    # Along an axis that needs finer pixels than there are, neighbours are blended; otherwise footprints are averaged.
    return _blend(start, count, step, length) if step < 1 else _average(start, count, step, length)


def _average(start: int, count: int, step: float, length: int) -> _Weights:
    low = (start + np.arange(count)) * step
    high = np.minimum((start + np.arange(count) + 1) * step, length)
    first, last = floor(low[0] + 1e-9), min(length, ceil(high[-1] - 1e-9))
    reach = ceil(step) + 1
    columns = np.floor(low + 1e-9).astype(np.int64)[:, None] + np.arange(reach)
    shares = np.minimum(columns + 1, high[:, None]) - np.maximum(columns, low[:, None])
    shares = np.where(columns < last, np.maximum(shares, 0), 0)
    shares /= shares.sum(axis=1, keepdims=True)
    return _Weights(_matrix(shares, np.minimum(columns, last - 1) - first, last - first), first)


def _blend(start: int, count: int, step: float, length: int) -> _Weights:
    centre = (start + np.arange(count) + 0.5) * step - 0.5
    left = np.floor(centre).astype(np.int64)
    share = centre - left
    columns = np.clip(np.stack([left, left + 1], axis=1), 0, length - 1)
    first, last = int(columns.min()), int(columns.max()) + 1
    return _Weights(_matrix(np.stack([1 - share, share], axis=1), columns - first, last - first), first)


def _matrix(shares: np.ndarray, columns: np.ndarray, width: int) -> sparse.csr_matrix:
    rows = np.repeat(np.arange(len(shares)), shares.shape[1])
    return sparse.csr_matrix((shares.ravel().astype(np.float32), (rows, columns.ravel())), (len(shares), width))


def _weighted(pixels: UInt8, down: sparse.csr_matrix, across: sparse.csr_matrix) -> UInt8:
    height, width = pixels.shape[:2]
    rows: Float32 = down @ pixels.reshape(height, width * 3).astype(np.float32)
    columns = rows.reshape(-1, width, 3).transpose(1, 0, 2).reshape(width, -1)
    both: Float32 = across @ np.ascontiguousarray(columns)
    mixed = both.reshape(across.shape[0], down.shape[0], 3).transpose(1, 0, 2)
    return np.ascontiguousarray(np.rint(mixed).clip(0, 255).astype(np.uint8))
