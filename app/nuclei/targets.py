"""What a network is asked for: horizontal and vertical offsets inside every nucleus."""

from __future__ import annotations

import numpy as np

from app.nuclei.types import Float32, Float64, Int32, Int64

SMALLEST_NUCLEUS = 8
"""Nuclei of fewer pixels carry no offsets (PAPER.md 2, as in HoVer-Net)."""


def hv_targets(instance_map: Int32) -> Float32:
    """Offset of each pixel from the centre of its nucleus, each side scaled to reach 1 (HoVer-Net, section 3.1).

    Args:
        instance_map: (H, W) integer, 0 background; ids need not be dense.

    Returns:
        (H, W, 2) float32 in -1..1: `[..., 0]` grows to the right, `[..., 1]` downward; 0 on the background and in
        nuclei of fewer than 8 pixels. The centre is the centre of mass, rounded to a pixel (half up).
    """
    hv = np.zeros((*instance_map.shape, 2), np.float32)
    rows, cols = np.nonzero(instance_map)
    if not len(rows):
        return hv
    ids = instance_map[rows, cols].astype(np.int64)
    sizes = np.bincount(ids)
    for channel, position in enumerate((cols, rows)):
        hv[rows, cols, channel] = _sides_to_one(position, ids, sizes)
    hv[rows, cols] *= (sizes >= SMALLEST_NUCLEUS)[ids, None]
    return hv


def _sides_to_one(position: Int64, ids: Int64, sizes: Int64) -> Float64:
    centre = np.floor(np.bincount(ids, weights=position) / np.maximum(sizes, 1) + 0.5)
    offset = position - centre[ids]
    reach = np.zeros((2, len(sizes)))  # largest magnitude before and after the centre
    np.maximum.at(reach[0], ids, -offset)
    np.maximum.at(reach[1], ids, offset)
    reach[reach == 0] = 1
    scaled: Float64 = offset / np.where(offset < 0, reach[0][ids], reach[1][ids])
    return scaled
