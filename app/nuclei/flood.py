"""To which marker does each pixel of the mask belong?

The flood of PAPER.md 5: from the markers, lowest energy first, 4 neighbours, ties first in, first out. A blob with
one marker needs no flood, one without marker vanishes, and the others are flooded one by one in memory that stays in
cache, in linear time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from app.nuclei.flood_queue import flood_box, queue
from app.nuclei.jit import Array, kernel
from app.nuclei.runs import Found, LabelRuns, find_runs, part_of_runs, room_for_label_runs, room_for_runs
from app.nuclei.scratch import borrow
from app.nuclei.types import Int32, UInt8

UInt16 = npt.NDArray[np.uint16]

NONE, SEVERAL = -1, -2  # markers of a blob, where it has not just one


def flood(
    mask: UInt8,
    markers: UInt8,
    energy: UInt16,
    *,
    step: int,
    smallest_marker: int,
    smallest_object: int,
    compiled: bool,
) -> tuple[Int32, Found | None]:
    """Labels of the mask's pixels.

    The order is that of scikit-image's watershed, settled where that leaves it open: of marker pixels at one level, the
    first in reading order comes first, and what it reaches below its level at once.

    Args:
        mask, markers: (h, w) uint8 of 0 and 1; each 4-connected part of `markers` is one marker; it may leave the mask.
        energy: (h, w) uint16, lowest first.
        step: every how many rows and columns of the result are kept.
        smallest_marker, smallest_object: pixels that a marker, a part of the mask, must have.
        compiled: by the numba kernel, or by SciPy and scikit-image.

    Returns:
        (ceil(h / step), ceil(w / step)) int32: 0 background, 1..N in reading order of each label's first pixel; and the
        runs of that map if they are known: good until the thread looks for runs again.
    """
    if not compiled:
        labels = _flood_skimage(mask, markers, energy, smallest_marker, smallest_object)
        return in_reading_order(labels[::step, ::step]), None
    height, width = mask.shape
    out = np.zeros((-(-height // step), -(-width // step)), np.int32)
    runs = borrow("runs of mask and markers", (4, room_for_runs(height, width)), np.int32)
    cells = (height + 4) * (width + 2)
    box = [borrow(f"box {n}", (cells,), t) for n, t in (("label", np.int32), ("level", np.uint16), ("link", np.uint32))]
    first, room = room_for_label_runs(*out.shape)
    limits = step, smallest_marker, smallest_object
    count, highest = _flood(mask, markers, energy, *limits, runs, *box, *queue.arrays, out, first, room)
    return out, (LabelRuns(first, *room[:, :count]), highest)


def in_reading_order(labels: npt.NDArray[np.integer[Any]]) -> Int32:
    """Labels renumbered 1..N in row-major order of their first pixel."""
    ids, first, index = np.unique(np.append(labels.ravel(), 0), return_index=True, return_inverse=True)
    number = np.zeros(len(ids), np.int32)
    real = np.flatnonzero(ids > 0)
    number[real[np.argsort(first[real])]] = np.arange(1, len(real) + 1)
    return number[index[:-1]].reshape(labels.shape)


def _flood_skimage(mask: UInt8, markers: UInt8, energy: UInt16, smallest_marker: int, smallest_object: int) -> Int32:
    blobs, seeds = _large_parts(mask, smallest_object), _large_parts(markers, smallest_marker)
    seeds[blobs == 0] = 0
    # scikit-image takes equal pixels of markers in no certain order: a rank in reading order decides, before others.
    room = energy.size + 1
    height = energy.astype(np.float64) * room + (room - 1)
    rows, cols = np.nonzero(seeds)
    height[rows, cols] += np.arange(len(rows)) - (room - 1)
    labels = watershed(height, markers=seeds, mask=blobs > 0)  # type: ignore[no-untyped-call]
    return np.asarray(labels, np.int32)


def _large_parts(image: UInt8, smallest: int) -> Int32:
    labels, _ = ndimage.label(image)
    kept = np.bincount(labels.ravel()) >= smallest
    kept[0] = False
    parts: Int32 = np.where(kept[labels], labels, 0).astype(np.int32)
    return parts


@kernel
def _flood(
    mask: Array, markers: Array, energy: Array, step: int, smallest_marker: int, smallest_object: int,
    runs: Array, label: Array, level: Array, link: Array,
    seeds: Array, head: Array, tail: Array, bits: Array, summary: Array, out: Array, out_first: Array, out_runs: Array,
) -> tuple[int, int]:  # fmt: skip
    height = mask.shape[0]
    first, seed_first = np.empty(height + 1, np.int32), np.empty(height + 1, np.int32)
    start, stop, seed_start, seed_stop = runs[0], runs[1], runs[2], runs[3]
    blob = np.empty(find_runs(mask, first, start, stop), np.int32)
    marker = np.empty(find_runs(markers, seed_first, seed_start, seed_stop), np.int32)
    part_of_runs(first, start, stop, blob)
    part_of_runs(seed_first, seed_start, seed_stop, marker)
    _drop_small(marker, seed_start, seed_stop, smallest_marker)
    _drop_small(blob, start, stop, smallest_object)
    only, near = np.full(len(blob), NONE, np.int32), np.empty(len(blob), np.int32)
    _meet(first, start, stop, blob, seed_first, seed_start, seed_stop, marker, only, near)

    following, last = np.full(len(blob), -1, np.int32), np.empty(len(blob), np.int32)
    row = np.empty(len(blob), np.int32)
    left, right = np.empty(len(blob), np.int32), np.empty(len(blob), np.int32)
    _list_runs(first, start, stop, blob, only, following, last, row, left, right)
    for b in range(len(blob)):
        if blob[b] == b and only[b] == SEVERAL:
            wide = right[b] - left[b] + 2
            cells = (row[last[b]] - row[b] + 5) * wide
            shift = wide * (2 - row[b]) + 1 - left[b]  # from row * wide + col to the place in the box
            box, heights = label[:cells], level[:cells]
            _fill_box(
                b, following, row, start, stop, energy, near, seed_first, seed_start, seed_stop, marker,
                wide, shift, box, heights,
            )  # fmt: skip
            flood_box(box, heights, wide, link[:cells], seeds, head, tail, bits, summary)
            _take_box(b, following, row, start, stop, wide, shift, box, step, out)
    return _number(first, start, stop, blob, only, step, len(marker), out, out_first, out_runs)  # type: ignore[no-any-return]


@kernel
def _drop_small(part: Array, start: Array, stop: Array, smallest: int) -> None:
    """Set the part of each run that belongs to fewer than `smallest` pixels to -1."""
    size = np.zeros(len(part), np.int64)
    for i in range(len(part)):
        size[part[i]] += stop[i] - start[i]
    for i in range(len(part)):
        if size[part[i]] < smallest:
            part[i] = -1


@kernel
def _meet(
    first: Array, start: Array, stop: Array, blob: Array,
    seed_first: Array, seed_start: Array, seed_stop: Array, marker: Array, only: Array, near: Array,
) -> None:  # fmt: skip
    """Find each blob's marker, NONE or SEVERAL, kept at the blob's first run; and of each run the first marker near.

    No run of markers before `near` reaches into the run, in its row.
    """
    for r in range(len(first) - 1):
        k, seed_end = seed_first[r], seed_first[r + 1]
        for i in range(first[r], first[r + 1]):
            while k < seed_end and seed_stop[k] <= start[i]:
                k += 1
            near[i] = k
            if blob[i] < 0:
                continue
            at = k
            while at < seed_end and seed_start[at] < stop[i]:
                if marker[at] >= 0 and only[blob[i]] != marker[at]:
                    only[blob[i]] = marker[at] if only[blob[i]] == NONE else SEVERAL
                at += 1


@kernel
def _list_runs(
    first: Array, start: Array, stop: Array, blob: Array, only: Array,
    following: Array, last: Array, row: Array, left: Array, right: Array,
) -> None:  # fmt: skip
    """Link the runs of each blob with several markers and find its box."""
    for r in range(len(first) - 1):
        for i in range(first[r], first[r + 1]):
            b = blob[i]
            row[i] = r
            if b < 0 or only[b] != SEVERAL:
                continue
            if i == b:
                left[b], right[b] = start[i], stop[i]
            else:
                following[last[b]] = i
                left[b], right[b] = min(left[b], start[i]), max(right[b], stop[i])
            last[b] = i


@kernel
def _fill_box(
    i: int, following: Array, row: Array, start: Array, stop: Array, energy: Array, near: Array,
    seed_first: Array, seed_start: Array, seed_stop: Array, marker: Array,
    wide: int, shift: int, label: Array, level: Array,
) -> None:  # fmt: skip
    """Copy a blob, the list of runs from i on, into a flat box with a frame: -1 outside it, 0 free, else label."""
    label[:] = -1
    while i >= 0:
        r = row[i]
        at = r * wide + shift
        for c in range(start[i], stop[i]):
            label[at + c] = 0
            level[at + c] = energy[r, c]
        k = near[i]
        while k < seed_first[r + 1] and seed_start[k] < stop[i]:
            if marker[k] >= 0:
                for c in range(max(start[i], seed_start[k]), min(stop[i], seed_stop[k])):
                    label[at + c] = marker[k] + 1
            k += 1
        i = following[i]


@kernel
def _take_box(
    i: int, following: Array, row: Array, start: Array, stop: Array,
    wide: int, shift: int, label: Array, step: int, out: Array,
) -> None:  # fmt: skip
    """Copy a flooded blob back, every `step`th row and column."""
    while i >= 0:
        r = row[i]
        if r % step == 0:
            at = r * wide + shift
            target = out[r // step]
            for c in range((start[i] + step - 1) // step, (stop[i] + step - 1) // step):
                target[c] = max(label[at + c * step], 0)
        i = following[i]


@kernel
def _number(
    first: Array, start: Array, stop: Array, blob: Array, only: Array, step: int, most: int,
    out: Array, out_first: Array, out_runs: Array,
) -> tuple[int, int]:  # fmt: skip
    """Paint the blobs with one marker, number labels up to `most` 1..N in reading order of their first pixel, and note
    the runs of the result; how many runs and labels there are.
    """
    number = np.zeros(most + 1, np.int32)
    count, runs = 0, 0
    for r in range(out.shape[0]):
        out_first[r] = runs
        for i in range(first[r * step], first[r * step + 1]):
            begin, end = (start[i] + step - 1) // step, (stop[i] + step - 1) // step
            if begin == end or blob[i] < 0 or only[blob[i]] == NONE:
                continue
            before, mine = 0, 0  # a label and its number, which the next pixel most likely has too
            if only[blob[i]] != SEVERAL:
                before = only[blob[i]] + 1
                if not number[before]:
                    count += 1
                    number[before] = count
                mine = number[before]
                for c in range(begin, end):
                    out[r, c] = mine
                runs = _note(mine, begin, end, out_first[r], out_runs, runs)
                continue
            for c in range(begin, end):
                label = out[r, c]
                if label != before:
                    runs = _note(mine, begin, c, out_first[r], out_runs, runs)
                    if label and not number[label]:
                        count += 1
                        number[label] = count
                    before, mine, begin = label, number[label], c
                out[r, c] = mine
            runs = _note(mine, begin, end, out_first[r], out_runs, runs)
    out_first[out.shape[0]] = runs
    return runs, count


@kernel
def _note(mine: int, begin: int, end: int, first: int, runs: Array, count: int) -> int:
    """Add a run unless it is background, or make the last longer; how many there are now."""
    if not mine:
        return count
    if count > first and runs[1, count - 1] == begin and runs[2, count - 1] == mine:
        runs[1, count - 1] = end  # a gap that fell between the rows and columns that are kept
        return count
    runs[0, count], runs[1, count], runs[2, count] = begin, end, mine
    return count + 1
