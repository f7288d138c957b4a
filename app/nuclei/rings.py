"""What is the outline of a nucleus, exactly?

Pixel-edge rings: a pixel (row r, column c) covers [c, c+1] x [r, r+1], the ring runs along the edges between nucleus
and not, and its shoelace area is the number of pixels. Only corner points are kept. Rings start at the top-left
corner of the nucleus' first pixel in reading order and go right first, so their shoelace sum is positive.
"""

from __future__ import annotations

import numpy as np
import shapely

from app.nuclei.jit import HAVE_NUMBA, Array, kernel
from app.nuclei.runs import LabelRuns, label_runs
from app.nuclei.scratch import borrow
from app.nuclei.types import Float64, Int32, Int64, Rings


def trace(
    instance_map: Int32, count: int, scale: tuple[float, float] = (1.0, 1.0), compiled: bool = HAVE_NUMBA
) -> Rings:
    """Exterior rings of instances 1..N.

    Args:
        instance_map: (H, W) int32, C-contiguous, as `tidy` returns it; of a nucleus in parts the first is traced, and
            holes are not seen.
        count: N; every number must occur.
        scale: (x, y), what a pixel's width and height are in the caller's pixels.
        compiled: by the numba kernel, or by NumPy.

    Returns:
        N closed rings, in order.
    """
    if compiled:
        return trace_runs(instance_map, label_runs(instance_map)[0], count, (float(scale[0]), float(scale[1])))
    return _trace_numpy(instance_map, count, scale)


def trace_runs(instance_map: Int32, runs: LabelRuns, count: int, scale: tuple[float, float]) -> Rings:
    """As `trace`, by the kernel, with the map's runs at hand."""
    # A run has two upright edges in its row, and each edge at most two corners.
    points = borrow("ring points", (4 * len(runs.label) + count, 2), np.float64)
    offsets = np.zeros(count + 1, np.int64)
    used = _trace(instance_map, runs.first, runs.start, runs.label, *scale, points, offsets)
    return Rings(points[:used].copy(), offsets)


def simplify(rings: Rings, tolerance: float) -> tuple[Rings, Float64]:
    """Rings with fewer points, each still valid; for a display, as their area is no longer exact.

    Args:
        rings: closed rings.
        tolerance: largest distance of a dropped point from the new ring, in the rings' unit; 0.75 halves the points.

    Returns:
        The rings, closed and of positive shoelace sum, and (N,) float64 relative error of each area.
    """
    if not len(rings):
        return rings, np.zeros(0)
    index = np.repeat(np.arange(len(rings)), np.diff(rings.offsets))
    exact = shapely.polygons(shapely.linearrings(rings.points, indices=index))
    fewer = shapely.simplify(exact, tolerance, preserve_topology=True)
    bad = ~shapely.is_valid(fewer) | (shapely.area(fewer) == 0)
    fewer[bad] = exact[bad]
    # counter-clockwise by number, which is what shapely calls the opposite of its default for exteriors
    fewer = shapely.orient_polygons(fewer, exterior_cw=False)
    points, owner = shapely.get_coordinates(fewer, return_index=True)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(rings)))]).astype(np.int64)
    return Rings(points, offsets), shapely.area(fewer) / shapely.area(exact) - 1


@kernel
def _trace(
    labels: Array,
    first: Array,
    start: Array,
    label: Array,
    scale_x: float,
    scale_y: float,
    points: Array,
    offsets: Array,
) -> int:
    """Fill points and offsets; how many points there are."""
    count = len(offsets) - 1
    row, col = np.full(count + 1, -1, np.int64), np.empty(count + 1, np.int64)
    for r in range(len(first) - 1):
        for i in range(first[r], first[r + 1]):
            if row[label[i]] < 0:
                row[label[i]], col[label[i]] = r, start[i]
    at = 0
    for number in range(1, count + 1):
        if row[number] >= 0:
            at = _walk(labels, number, row[number], col[number], scale_x, scale_y, points, at)
        offsets[number] = at
    return at


@kernel
def _walk(
    labels: Array, number: int, row: int, col: int, scale_x: float, scale_y: float, points: Array, at: int
) -> int:
    """Follow the edge with the nucleus on the right hand until it is back where it began, facing right."""
    height, width = labels.shape
    y, x, dy, dx = row, col, 0, 1
    begin = at
    points[at, 0], points[at, 1] = x * scale_x, y * scale_y
    at += 1
    while True:
        y, x = y + dy, x + dx
        # The two pixels ahead of the corner (y, x), on the left and on the right hand.
        right_row = y - 1 if (dx < 0 or dy < 0) else y
        right_col = x - 1 if (dx < 0 or dy > 0) else x
        left_row = y - 1 if (dx > 0 or dy < 0) else y
        left_col = x - 1 if (dx < 0 or dy < 0) else x
        on_right = 0 <= right_row < height and 0 <= right_col < width and labels[right_row, right_col] == number
        on_left = 0 <= left_row < height and 0 <= left_col < width and labels[left_row, left_col] == number
        if on_right and not on_left:
            continue
        if y == row and x == col and not on_right and dy < 0:
            break
        points[at, 0], points[at, 1] = x * scale_x, y * scale_y
        at += 1
        if on_right:
            dy, dx = -dx, dy
        else:
            dy, dx = dx, -dy
    points[at] = points[begin]
    return at + 1


def _trace_numpy(labels: Int32, count: int, scale: tuple[float, float]) -> Rings:
    """Directed edges of all nuclei at once, then each ring from edge to edge."""
    start, step, owner = _edges(labels)
    order = np.lexsort((start, owner))
    start, step, owner = start[order], step[order], owner[order]
    stride = labels.shape[1] + 1
    corners = (labels.shape[0] + 1) * stride
    key = owner * corners + start
    following = np.searchsorted(key, key + step).tolist()
    begins = np.searchsorted(owner, np.arange(1, count + 2))
    rings, offsets = [], [0]
    for number in range(count):
        ring, edge = [], int(begins[number])
        while True:
            ring.append(edge)
            edge = following[edge]
            if edge == ring[0]:
                break
        steps = step[ring]
        turns = start[ring][np.roll(steps, 1) != steps]
        rings.append(np.append(turns, turns[0]))
        offsets.append(offsets[-1] + len(turns) + 1)
    flat = np.concatenate(rings) if rings else np.zeros(0, np.int64)
    points = np.stack([flat % stride * scale[0], flat // stride * scale[1]], axis=1)
    return Rings(points, np.array(offsets, np.int64))


def _edges(labels: Int32) -> tuple[Int64, Int64, Int64]:
    """Every pixel edge with the nucleus on its right hand: first corner, step to the next corner, and whose it is."""
    padded = np.pad(labels, 1)
    middle = padded[1:-1, 1:-1]
    stride = labels.shape[1] + 1
    sides = [  # neighbour, first corner relative to the pixel's top-left one, step
        (padded[:-2, 1:-1], 0, 1),
        (padded[1:-1, 2:], 1, stride),
        (padded[2:, 1:-1], stride + 1, -1),
        (padded[1:-1, :-2], stride, -stride),
    ]
    starts, steps, owners = [], [], []
    for neighbour, corner, step in sides:
        rows, cols = np.nonzero((middle > 0) & (middle != neighbour))
        starts.append(rows * stride + cols + corner)
        steps.append(np.full(len(rows), step))
        owners.append(middle[rows, cols].astype(np.int64))
    return np.concatenate(starts), np.concatenate(steps), np.concatenate(owners)
