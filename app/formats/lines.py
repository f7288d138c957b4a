"""How are rings drawn for a viewer at any scale, so that tiles laid side by side show no seam?

Rings are filled into a label map that is finer than the picture, outlined there like any overlay (a line on the
nucleus' own pixels, a rim around it) and averaged down, which smooths the edges. What a pixel of that map holds does
not depend on the window, so neither does the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from app.formats.overlay import COLOURS, CROSS, RIMS
from app.formats.raster import fill
from app.nuclei.types import Float64, Int32, Int64, Rings, UInt8

# Paints by index: none, lines of each class, rims of each class; colours times their opacity, as these can be averaged.
_STRAIGHT = np.concatenate([np.zeros((1, 4), np.uint8), np.insert(COLOURS, 3, 255, axis=1), RIMS]).astype(np.uint32)
_PAINTS = ((_STRAIGHT * np.insert(_STRAIGHT[:, [3, 3, 3]], 3, 255, axis=1) + 127) // 255).astype(np.uint8)
_CONTEXT = 4  # pixels around the picture that may have a part in it


@dataclass(frozen=True, slots=True)
class Shapes:
    """Rings that do not overlap each other, in level-0 pixels.

    Attributes:
        rings: closed.
        kinds: (N,) uint8, class of each.
        step: level-0 pixels per pixel of the grid on which they were traced.
    """

    rings: Rings
    kinds: UInt8
    step: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Pen:
    """How lines are drawn at a level: finer pixels per pixel, and the widths of line and rim in those."""

    finer: int
    line: int
    rim: int

    @classmethod
    def at(cls, reduction: int) -> Pen:
        """Thick with a rim where nuclei are large, thin without one where they are a few pixels."""
        return cls(3, 5, 3) if reduction == 1 else cls(2, 3, 1) if reduction == 2 else cls(2, 2, 0)


def draw(shapes: list[Shapes], reduction: int, x: int, y: int, width: int, height: int) -> UInt8:
    """Outlines on a transparent ground.

    Args:
        shapes: in an order that does not depend on the picture; where they overlap, the first ones lie on top.
        reduction: level-0 pixels per pixel of the level.
        x, y, width, height: of the picture, in pixels of the level.

    Returns:
        (height, width, 4) uint8 RGBA.
    """
    pen = Pen.at(reduction)
    labels, kinds = _labels(shapes, reduction, pen, x, y, width, height)
    if not labels.any():
        return np.zeros((height, width, 4), np.uint8)
    edge = _CONTEXT * pen.finer
    return _averaged(_painted(labels, kinds, pen)[edge:-edge, edge:-edge], pen.finer)


def chamfered(rings: Rings, step: tuple[float, float]) -> tuple[Float64, Int64]:
    """Rings whose corners are cut off half a grid pixel before and behind: stairs become slopes.

    Returns:
        Points of all rings end to end, closed, and where each begins.
    """
    lengths = np.diff(rings.offsets) - 1
    at = np.arange(lengths.sum()) + np.repeat(np.arange(len(lengths)), lengths)  # without the closing points
    here, along = rings.points[at], rings.points[at + 1] - rings.points[at]
    cut = np.minimum(0.5, np.sqrt(step[0] * step[1]) / 2 / np.maximum(np.hypot(*along.T), 1e-9))[:, None]
    points = np.empty((2 * len(at) + len(lengths), 2))
    offsets = np.concatenate([[0], np.cumsum(2 * lengths + 1)]).astype(np.int64)
    place = 2 * np.arange(len(at)) + np.repeat(np.arange(len(lengths)), lengths)
    points[place], points[place + 1] = here + cut * along, here + (1 - cut) * along
    points[offsets[1:] - 1] = points[offsets[:-1]]
    return points, offsets


def _labels(
    shapes: list[Shapes], reduction: int, pen: Pen, x: int, y: int, width: int, height: int
) -> tuple[Int32, UInt8]:
    """Label map of all shapes, finer than the picture and with context around it, and the class of each label."""
    left, top, wide, high = (
        pen.finer * side for side in (x - _CONTEXT, y - _CONTEXT, width + 2 * _CONTEXT, height + 2 * _CONTEXT)
    )
    labels = np.zeros((high, wide), np.int32)
    known = 0
    for each in shapes:
        smooth = max(each.step) * pen.finer > reduction  # where a stair would be seen
        points, offsets = chamfered(each.rings, each.step) if smooth else (each.rings.points, each.rings.offsets)
        points = points * (pen.finer / reduction)
        x0, y0 = np.clip(np.floor(points.min(axis=0)).astype(np.int64) - (left, top), 0, (wide, high)).tolist()
        x1, y1 = np.clip(np.ceil(points.max(axis=0)).astype(np.int64) - (left, top), 0, (wide, high)).tolist()
        own = fill(points, offsets, left + x0, top + y0, x1 - x0, y1 - y0)
        below = labels[y0:y1, x0:x1]
        free = (own > 0) & (below == 0)
        below[free] = own[free] + known
        known += len(each.kinds)
    return labels, np.concatenate([np.zeros(1, np.uint8), *(each.kinds for each in shapes)])


def _painted(labels: Int32, kinds: UInt8, pen: Pen) -> UInt8:
    """(H, W) uint8, which of `_PAINTS` each pixel takes; a rim covers no nucleus, a line no other one."""
    # OpenCV's filters take no int32; float32 is exact up to 16 million.
    numbers: npt.NDArray[np.uint16 | np.float32] = labels.astype(np.uint16 if len(kinds) < 2**16 else np.float32)
    inside = numbers > 0
    low, high = (change(numbers, CROSS, iterations=pen.line) for change in (cv2.erode, cv2.dilate))
    line = inside & (low != high)
    paint = np.zeros(labels.shape, np.uint8)
    paint[line] = 1 + kinds[labels[line]]
    if pen.rim:
        nearest = cv2.dilate(numbers, CROSS, iterations=pen.rim)
        rim = (nearest > 0) & ~inside
        paint[rim] = 1 + len(COLOURS) + kinds[nearest[rim].astype(np.intp)]
    return paint


def _averaged(paint: UInt8, times: int) -> UInt8:
    """(H / times, W / times, 4) uint8 RGBA."""
    height, width = paint.shape[0] // times, paint.shape[1] // times
    colours = _PAINTS.view(np.uint32)[paint].view(np.uint8).reshape(*paint.shape, 4)
    sums = np.zeros((height, width, 4), np.uint16)
    for row, col in np.ndindex(times, times):
        sums += colours[row::times, col::times]
    opacity = sums[..., 3:].astype(np.uint32)
    picture = np.empty((height, width, 4), np.uint8)
    picture[..., :3] = np.minimum(sums[..., :3] * np.uint32(255) // np.maximum(opacity, 1), 255)
    picture[..., 3:] = (opacity + times * times // 2) // (times * times)
    return picture
