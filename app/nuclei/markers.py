"""Where does each nucleus begin?

Markers after PAPER.md 5: holes filled, opened, so that a bridge of pixels does not make two nuclei one.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from scipy import ndimage

from app.nuclei.jit import Array, kernel
from app.nuclei.runs import find_root, find_runs, room_for_runs
from app.nuclei.scratch import borrow
from app.nuclei.types import UInt8

SHAPES = {"ellipse": cv2.MORPH_ELLIPSE, "cross": cv2.MORPH_CROSS, "rect": cv2.MORPH_RECT}


def clean(inner: UInt8, shape: str, size: int, compiled: bool) -> UInt8:
    """Raw markers with holes filled and bridges opened.

    Args:
        inner: (h, w) uint8 of 0 and 1; overwritten.
        shape, size: the structuring element, "ellipse", "cross" or "rect".
        compiled: by numba kernels, or by SciPy and OpenCV.

    Returns:
        (h, w) uint8 of 0 and 1; the thread's own, good until the next call.
    """
    if compiled:
        _fill_holes(inner, borrow("runs of markers", (2, room_for_runs(*inner.shape)), np.int32))
    else:
        inner = ndimage.binary_fill_holes(inner).astype(np.uint8)
    opened = borrow("markers", inner.shape, np.uint8)
    if compiled and (shape, size) == ("cross", 3):
        _open_cross(inner, borrow("eroded", inner.shape, np.uint8), opened)
        return opened
    return np.asarray(cv2.morphologyEx(inner, cv2.MORPH_OPEN, _element(shape, size), dst=opened), np.uint8)


@lru_cache(maxsize=64)
def _element(shape: str, size: int) -> UInt8:
    return np.asarray(cv2.getStructuringElement(SHAPES[shape], (size, size)), np.uint8)


@kernel
def _open_cross(image: Array, eroded: Array, out: Array) -> None:
    """Opening with the 3 x 3 cross; beyond the border nothing is asked for and nothing is given."""
    last = image.shape[0] - 1
    for r in range(last + 1):
        _all_of_cross(image, max(r - 1, 0), r, min(r + 1, last), eroded)
    for r in range(last + 1):
        _any_of_cross(eroded, max(r - 1, 0), r, min(r + 1, last), out)


@kernel
def _all_of_cross(image: Array, up: int, r: int, down: int, out: Array) -> None:
    above, here, below, target = image[up], image[r], image[down], out[r]
    last = len(here) - 1
    for c in range(1, last):
        target[c] = here[c - 1] & here[c] & here[c + 1] & above[c] & below[c]
    for c in (0, last):
        target[c] = here[max(c - 1, 0)] & here[c] & here[min(c + 1, last)] & above[c] & below[c]


@kernel
def _any_of_cross(image: Array, up: int, r: int, down: int, out: Array) -> None:
    above, here, below, target = image[up], image[r], image[down], out[r]
    last = len(here) - 1
    for c in range(1, last):
        target[c] = here[c - 1] | here[c] | here[c + 1] | above[c] | below[c]
    for c in (0, last):
        target[c] = here[max(c - 1, 0)] | here[c] | here[min(c + 1, last)] | above[c] | below[c]


@kernel
def _fill_holes(image: Array, runs: Array) -> None:  # noqa: PLR0912 - one walk over the runs
    """Set background that is not 4-connected with the border, in place."""
    height, width = image.shape
    first = np.empty(height + 1, np.int32)
    start, stop = runs[0], runs[1]
    find_runs(image, first, start, stop)
    # Background runs: one more per row than runs, some of them empty. Number k of row r is first[r] + r + k.
    count = first[height] + height
    parent = np.arange(count + 1).astype(np.int32)
    outside = count  # stands for what lies around the image
    left, right = np.empty(count, np.int32), np.empty(count, np.int32)
    for r in range(height):
        base = first[r] + r
        here = first[r + 1] - first[r] + 1
        for k in range(here):
            left[base + k] = stop[first[r] + k - 1] if k > 0 else 0
            right[base + k] = start[first[r] + k] if k < here - 1 else width
    for r in range(height):
        i, end = first[r] + r, first[r + 1] + r + 1
        if r == 0 or r == height - 1:
            for k in range(i, end):
                parent[k] = outside
            if r == 0:
                continue
        else:
            if left[i] < right[i]:
                parent[i] = outside
            if left[end - 1] < right[end - 1]:
                parent[end - 1] = outside
        above, end_above = first[r - 1] + r - 1, i
        while above < end_above and i < end:
            if max(left[above], left[i]) < min(right[above], right[i]):
                _join_outward(parent, above, i)
            if right[above] < right[i]:
                above += 1
            else:
                i += 1
    for r in range(1, height - 1):
        for k in range(first[r] + r, first[r + 1] + r + 1):
            if left[k] < right[k] and find_root(parent, k) != outside:
                image[r, left[k] : right[k]] = 1


@kernel
def _join_outward(parent: Array, a: int, b: int) -> None:
    """Join two parts; the larger number is the root, so that the outside, the largest, stays one."""
    a, b = find_root(parent, a), find_root(parent, b)
    if a < b:
        parent[a] = b
    else:
        parent[b] = a
