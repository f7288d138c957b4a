"""How does a label map become one where every nucleus is a single region without holes?

The rule, in this order: of each label the largest 4-connected part stays (of equal ones the first in reading order),
the others become background; then holes are filled, a hole being whatever a 4-connected path to the outside cannot
reach. Another nucleus inside such a hole is enclosed: it is absorbed and counted as dropped. Numbers become 1..N in
reading order.

A part that is 4-connected and has no 4-connected hole cannot meet itself at a corner, as the pinch would enclose one,
so its outline is one simple ring.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from app.nuclei.flood import in_reading_order
from app.nuclei.jit import HAVE_NUMBA, Array, fit_for_kernel, kernel
from app.nuclei.runs import Found, join, label_runs
from app.nuclei.scratch import borrow
from app.nuclei.types import Int32

PRESENT, SCATTERED, HOLLOW = 1, 2, 4  # bits of a label's state: there, in several parts, perhaps with a hole


class Tidied(NamedTuple):
    """What `tidy` returns, and the map's runs if they are known: good until the thread looks for runs again."""

    instance_map: Int32
    repaired: int
    dropped: int
    runs: Found | None = None


def tidy(labels: npt.NDArray[np.integer[Any]], compiled: bool = HAVE_NUMBA) -> tuple[Int32, int, int]:
    """One 4-connected region without holes per nucleus.

    Args:
        labels: (H, W), 0 background; numbers need be neither dense nor ordered.
        compiled: by numba kernels, or by SciPy.

    Returns:
        instance_map: (H, W) int32, 1..N in reading order of each nucleus' first pixel; the array given, if it was int32
            and nothing had to be mended.
        repaired: nuclei whose holes were filled or parts cut off.
        dropped: labels that another nucleus enclosed; N plus this is the number of labels given.

    Raises:
        ValueError: if `labels` is not two-dimensional or has negative numbers.
    """
    return tidied(labels, compiled)[:3]


def tidied(labels: npt.NDArray[np.integer[Any]], compiled: bool = HAVE_NUMBA, runs: Found | None = None) -> Tidied:
    """As `tidy`, given an int32 map's runs if they are known, and with those that `describe` need not look for then."""
    if labels.ndim != 2:
        raise ValueError(f"a label map is (H, W), got {labels.shape}")
    if not labels.size:
        return Tidied(labels.astype(np.int32), 0, 0)
    if labels.dtype != np.int32:
        if labels.min() < 0:
            raise ValueError("a label map has numbers from 0, got a negative one")
        labels = labels.astype(np.int32) if labels.max() <= labels.size else in_reading_order(labels.astype(np.int64))
    fit = fit_for_kernel(labels, np.int32)
    return _tidy_compiled(fit, runs) if compiled else _tidy_scipy(fit)


def _tidy_scipy(labels: Int32) -> Tidied:
    """Label by label, in its box."""
    if labels.min() < 0:
        raise ValueError("a label map has numbers from 0, got a negative one")
    if labels.max() > labels.size:
        labels = in_reading_order(labels)
    out = labels.copy()
    boxes = ndimage.find_objects(labels)
    mended = np.zeros(len(boxes) + 1, bool)
    for number, box in enumerate(boxes, start=1):
        if box is not None:
            parts, count = ndimage.label(labels[box] == number)
            if count > 1:
                largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
                out[box][(parts > 0) & (parts != largest)] = 0
                mended[number] = True
    for number, box in enumerate(boxes, start=1):
        if box is not None:
            own = out[box] == number
            filled = ndimage.binary_fill_holes(own)
            if np.count_nonzero(filled) > np.count_nonzero(own):
                out[box][filled] = number
                mended[number] = True
    survivors = np.unique(out[out > 0])
    present = sum(box is not None for box in boxes)
    return Tidied(in_reading_order(out), int(mended[survivors].sum()), present - len(survivors))


def _tidy_compiled(labels: Int32, found: Found | None) -> Tidied:
    runs, most = found or label_runs(labels)
    if most > labels.size:  # too large for a table by number
        labels = in_reading_order(labels)
        runs, most = label_runs(labels)
    part = borrow("parts", runs.label.shape, np.int32)
    state = np.zeros(most + 1, np.uint8)
    in_order, sound = _inspect(labels, *runs, part, state)
    if in_order and sound:
        return Tidied(labels, 0, 0, (runs, most))
    out = labels.copy()
    repaired, survivors = _mend(out, *runs, part, state, in_order)
    return Tidied(out, repaired, int(np.count_nonzero(state)) - survivors)


@kernel
def _inspect(  # noqa: PLR0912 - one walk over the runs
    labels: Array, first: Array, start: Array, stop: Array, label: Array, part: Array, state: Array
) -> tuple[bool, bool]:
    """Find parts, and what is wrong with each label.

    Args:
        part: (R,) filled with the first run of each run's part.
        state: (most + 1,) of zeros, filled with bits by label.

    Returns:
        Whether labels are 1..N in reading order, and whether nothing is wrong with any.
    """
    width, most = labels.shape[1], len(state) - 1
    for i in range(len(part)):
        part[i] = i
    seen, ordered = 0, True
    parts = np.zeros(most + 1, np.int32)
    for r in range(len(first) - 1):
        i, end = first[r], first[r + 1]
        for k in range(i, end):
            number = label[k]
            parts[number] += 1
            if not state[number]:
                state[number] = PRESENT
                seen += 1
                ordered = ordered and number == seen
            if r > 0:
                above, a, b = labels[r - 1], start[k], stop[k]
                if a > 0 and above[a - 1] == number and above[a] != number:
                    state[number] |= HOLLOW  # a pinch: two pixels that meet at a corner alone
                if b < width and above[b] == number and above[b - 1] != number:
                    state[number] |= HOLLOW
        if r > 0:
            k, k_end = first[r - 1], first[r]
            while k < k_end and i < end:
                if label[k] == label[i] and start[k] < stop[i] and start[i] < stop[k]:
                    if join(part, k, i):
                        parts[label[i]] -= 1
                    else:
                        state[label[i]] |= HOLLOW  # two ways from run to run: something is enclosed
                if stop[k] < stop[i]:
                    k += 1
                else:
                    i += 1
    for i in range(len(part)):
        part[i] = part[part[i]]
    sound = True
    for number in range(1, most + 1):
        if parts[number] > 1:
            state[number] |= SCATTERED
        sound &= state[number] <= PRESENT
    return ordered and seen == most, sound


@kernel
def _mend(
    out: Array, first: Array, start: Array, stop: Array, label: Array, part: Array, state: Array, in_order: bool
) -> tuple[int, int]:
    """Cut parts off, fill holes, number anew, in place; how many were mended and how many are left."""
    most = len(state) - 1
    size = np.zeros(len(part), np.int64)
    for i in range(len(part)):
        size[part[i]] += stop[i] - start[i]
    largest = np.full(most + 1, -1, np.int64)
    for i in range(len(part)):
        if part[i] == i and (largest[label[i]] < 0 or size[i] > size[largest[label[i]]]):
            largest[label[i]] = i
    top, bottom = np.full(most + 1, -1, np.int64), np.full(most + 1, -1, np.int64)
    left, right = np.full(most + 1, out.shape[1], np.int64), np.zeros(most + 1, np.int64)
    mended = np.zeros(most + 1, np.bool_)
    for r in range(len(first) - 1):
        for i in range(first[r], first[r + 1]):
            number = label[i]
            if part[i] != largest[number]:
                in_order &= part[i] > largest[number]  # a nucleus keeps its place unless its first part goes
                out[r, start[i] : stop[i]] = 0
                mended[number] = True
            elif state[number] & HOLLOW:
                if top[number] < 0:
                    top[number] = r
                bottom[number] = r + 1
                left[number], right[number] = min(left[number], start[i]), max(right[number], stop[i])
    for number in range(1, most + 1):
        if top[number] >= 0:
            box = out[top[number] : bottom[number], left[number] : right[number]]
            filled, absorbed = _fill(box, number)
            mended[number] |= filled
            in_order &= not absorbed
    if in_order:
        return mended.sum(), (state > 0).sum()
    return _renumber(out, mended)  # type: ignore[no-any-return]


@kernel
def _fill(box: Array, number: int) -> tuple[bool, bool]:
    """Give a label everything in its box that a 4-connected path from the frame cannot reach.

    Returns:
        Whether there was any, and whether any of it was another label's.
    """
    height, width = box.shape
    wide = width + 2
    # 0 unknown, 1 the label itself, 2 reached from outside
    state = np.zeros((height + 2) * wide, np.uint8)
    waiting = np.empty(len(state), np.int64)
    for r in range(height):
        for c in range(width):
            if box[r, c] == number:
                state[(r + 1) * wide + c + 1] = 1
    state[0], waiting[0], count = 2, 0, 1
    while count:
        count -= 1
        p = waiting[count]
        for q in (p - wide, p - 1, p + 1, p + wide):
            if 0 <= q < len(state) and not state[q]:
                state[q] = 2
                waiting[count] = q
                count += 1
    filled, absorbed = False, False
    for r in range(height):
        for c in range(width):
            if not state[(r + 1) * wide + c + 1]:
                filled = True
                absorbed |= box[r, c] != 0
                box[r, c] = number
    return filled, absorbed


@kernel
def _renumber(out: Array, mended: Array) -> tuple[int, int]:
    """Number 1..N in reading order, in place; how many of the mended, and how many in all, are still there."""
    number = np.zeros(len(mended), np.int32)
    count, repaired = 0, 0
    for r in range(out.shape[0]):
        line = out[r]
        for c in range(len(line)):
            if line[c]:
                if not number[line[c]]:
                    count += 1
                    number[line[c]] = count
                    repaired += mended[line[c]]
                line[c] = number[line[c]]
    return repaired, count
