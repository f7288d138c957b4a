"""How does one see from afar where nuclei of which class crowd?

Counts per cell are smoothed a little and coloured: the colour is that of the classes there, the more frequent ones
weighing more than their share so that mixtures stay recognisable, the opacity grows with the nuclei per mm². The scale
is the same for every slide and tile. Sums, weights and interpolation are whole numbers or single operations on floats,
so a pixel comes out the same whichever tile it lies in.
"""

from __future__ import annotations

import numpy as np

from app.formats.overlay import COLOURS
from app.nuclei.types import Float64, Int64, UInt8

GROW = 4
"""Pixels per cell, along each side."""
PAD = 5
"""Cells of context that a picture needs on each side."""
FULL_PER_MM2 = 8000.0
"""Nuclei per mm² at which the opacity is highest: a lymph follicle."""
_OPACITY = 200.0
_FAINTEST = 0.008  # share of FULL_PER_MM2 that is taken off: the rim of the smoothing on empty glass
_KERNEL = (1, 4, 6, 4, 1)
_SMOOTHED = sum(_KERNEL) ** 4
_NEAR = np.array([5, 7, 1, 3], np.int64)  # eighths that a pixel takes of the cell it lies nearest to the left of


def heat(counts: Int64, cell_mm2: float) -> UInt8:
    """Density as a picture on a transparent ground.

    Args:
        counts: (1 + classes, h + 2 * PAD, w + 2 * PAD) int64, nuclei in each cell, first those of no class.
        cell_mm2: area of a cell.

    Returns:
        (GROW * h, GROW * w, 4) uint8 RGBA.
    """
    smooth = _smoothed(_smoothed(counts)).astype(np.float64) / _SMOOTHED
    return _straight(_grown(_premultiplied(smooth, cell_mm2)))


def _smoothed(counts: Int64) -> Int64:
    """Binomial over five cells along both axes; two cells on each side are used up."""
    for axis in (1, 2):
        length = counts.shape[axis] - 4
        pieces = [np.take(counts, range(k, k + length), axis) * weight for k, weight in enumerate(_KERNEL)]
        counts = sum(pieces[1:], pieces[0])
    return counts


def _premultiplied(density: Float64, cell_mm2: float) -> Int64:
    """(h + 2, w + 2, 4) int64 in 256ths: colour times opacity, opacity."""
    total = density.sum(axis=0)
    weight = density * density  # squared, or a mixture of all classes would be one grey
    among = np.maximum(weight.sum(axis=0), 1e-12)
    level = total / (cell_mm2 * FULL_PER_MM2)
    alpha = np.sqrt(np.clip(level - _FAINTEST, 0.0, 1.0)) * _OPACITY
    picture = np.empty((*total.shape, 4), np.int64)
    for channel in range(3):
        mixed = np.zeros(total.shape)
        for kind in range(len(COLOURS)):
            mixed += weight[kind] * float(COLOURS[kind, channel])
        picture[..., channel] = np.rint(mixed / among * alpha / 255 * 256)
    picture[..., 3] = np.rint(alpha * 256)
    return picture


def _grown(picture: Int64) -> Int64:
    """Linear between the centres of cells, in 64ths; one cell on each side is used up."""
    for axis in (0, 1):
        n = picture.shape[axis] - 2
        at = np.arange(GROW * n)
        left = (at // GROW) + np.where(at % GROW < GROW // 2, 0, 1)
        shape = [1, 1, 1]
        shape[axis] = -1
        right_share = np.tile(_NEAR, n).reshape(shape)
        picture = np.take(picture, left, axis) * (8 - right_share) + np.take(picture, left + 1, axis) * right_share
    return picture


def _straight(picture: Int64) -> UInt8:
    alpha = picture[..., 3:]
    colour = picture[..., :3] * 255 // np.maximum(alpha, 1)
    opacity = (alpha + 64 * 128) // (64 * 256)
    return np.concatenate([np.where(opacity > 0, np.minimum(colour, 255), 0), opacity], axis=2).astype(np.uint8)
