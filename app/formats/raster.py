"""Which pixels does each ring hold?

The way back from rings to a label map: a pixel belongs to a ring that holds its centre. Rings that follow pixel edges
give exactly the map that they were traced on.
"""

from __future__ import annotations

import numpy as np

from app.nuclei.types import Float64, Int32, Int64


def fill(points: Float64, offsets: Int64, x: int, y: int, width: int, height: int) -> Int32:
    """Label map of rings that do not overlap.

    Args:
        points: (M, 2) float64, (x, y), closed rings end to end, counter-clockwise by number.
        offsets: (N + 1,) where each begins.
        x, y, width, height: of the window that is wanted, in the pixels in which the points are given.

    Returns:
        (height, width) int32, i + 1 inside ring i, 0 elsewhere. The same pixel comes out the same in every window.
        Where rings overlap or cross themselves, against their promise, the pixel has some number or 0.
    """
    n = len(offsets) - 1
    rows, cols, steps = _crossings(points, offsets, y, height)
    place = (rows - y) * (width + 1) + np.clip(cols - x, 0, width)
    changes = np.zeros((height, width + 1), np.int32)
    np.add.at(changes.ravel(), place, steps)
    labels = np.cumsum(changes[:, :width], axis=1, dtype=np.int32)
    labels[(labels < 0) | (labels > n)] = 0
    return labels


def _crossings(points: Float64, offsets: Int64, y: int, height: int) -> tuple[Int64, Int64, Int32]:
    """Where edges cross the middle of rows: row, first column behind it, and what the label changes by."""
    label = np.repeat(np.arange(1, len(offsets), dtype=np.int32), np.diff(offsets) - 1)
    inner = np.ones(max(0, len(points) - 1), np.bool_)
    inner[offsets[1:-1] - 1] = False  # from one ring's last point to the next one's first
    a, b = points[:-1][inner], points[1:][inner]
    first = np.ceil(np.minimum(a[:, 1], b[:, 1]) - 0.5).astype(np.int64).clip(y, y + height)
    count = np.ceil(np.maximum(a[:, 1], b[:, 1]) - 0.5).astype(np.int64).clip(y, y + height) - first
    edge = np.repeat(np.arange(len(a)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x0, y0), (x1, y1) = a[edge].T, b[edge].T
    cross = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    # The inside lies to the right of an edge that leads upward.
    return row, np.ceil(cross - 0.5).astype(np.int64), np.where(y1 < y0, label[edge], -label[edge])
