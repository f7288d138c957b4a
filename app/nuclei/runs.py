"""How are the parts of a binary image found quickly?

By its runs: maximal stretches of ones in a row. An image of nuclei has a thousand times fewer runs than pixels; parts
are joined run by run, with a union-find whose smaller number is the root, so parts come out in reading order of their
first run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from app.nuclei.jit import Array, kernel, lowest_bit
from app.nuclei.scratch import borrow
from app.nuclei.types import Int32


def room_for_runs(height: int, width: int) -> int:
    """Most runs that an image of 0 and 1 can have."""
    return height * ((width + 1) // 2)


@kernel
def find_runs(image: Array, first: Array, start: Array, stop: Array) -> int:
    """Runs of an (h, w) uint8 image of 0 and 1.

    Args:
        image: (h, w).
        first: (h + 1,) int32, filled: the runs of row r are first[r] .. first[r + 1] - 1.
        start, stop: int32, of the length `room_for_runs`; filled with columns, stop exclusive.

    Returns:
        How many runs there are.
    """
    height, width = image.shape
    words = width // 64
    turn = 0  # changes so far, on and off in turn
    for r in range(height):
        first[r] = turn >> 1
        row = image[r]
        eights = row[: 64 * words].view(np.uint64)
        inside = np.uint64(0)
        for k in range(words + 1):
            if k < words:
                bits = pack(eights, 8 * k)
            else:
                bits = np.uint64(0)
                for c in range(64 * words, width):
                    bits |= np.uint64(row[c]) << np.uint64(c & 63)
            changes = bits ^ (bits << np.uint64(1) | inside)
            inside = bits >> np.uint64(63)
            while changes:
                c = 64 * k + lowest_bit(changes)
                changes &= changes - np.uint64(1)
                if turn & 1:
                    stop[turn >> 1] = c
                else:
                    start[turn >> 1] = c
                turn += 1
        if turn & 1:
            stop[turn >> 1] = width
            turn += 1
    first[height] = turn >> 1
    return turn >> 1


@kernel
def pack(eights: Array, at: int) -> np.uint64:
    """64 pixels of 0 and 1, eight words of eight from `at` on, as bits; a product brings a word's to its top byte."""
    bits = np.uint64(0)
    for k in range(8):
        bits |= ((eights[at + k] * np.uint64(0x0102040810204080)) >> np.uint64(56)) << np.uint64(8 * k)
    return bits


@kernel
def find_root(parent: Array, i: int) -> int:
    """Root of i; the way there is halved for the next to come."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def join(parent: Array, a: int, b: int) -> bool:
    """Make the parts of a and b one; True if they were two."""
    a, b = find_root(parent, a), find_root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b
    return a != b


@kernel
def part_of_runs(first: Array, start: Array, stop: Array, part: Array) -> None:
    """4-connected parts: `part`, (R,) int32, is filled with the first run of each run's part."""
    for i in range(len(part)):
        part[i] = i
    for r in range(1, len(first) - 1):
        above, end_above = first[r - 1], first[r]
        i, end = first[r], first[r + 1]
        while above < end_above and i < end:
            if start[above] < stop[i] and start[i] < stop[above]:
                join(part, above, i)
            if stop[above] < stop[i]:
                above += 1
            else:
                i += 1
    for i in range(len(part)):
        part[i] = part[part[i]]


class LabelRuns(NamedTuple):
    """Runs of equal labels other than 0 of an (h, w) map, in reading order; the thread's own, good until the next.

    Attributes:
        first: (h + 1,) int32; the runs of row r are first[r] .. first[r + 1] - 1.
        start, stop: (R,) int32 columns, stop exclusive.
        label: (R,) int32.
    """

    first: Int32
    start: Int32
    stop: Int32
    label: Int32


Found = tuple[LabelRuns, int]
"""The runs of a map, and its largest label, 0 if there is none."""


def room_for_label_runs(height: int, width: int) -> tuple[Int32, Int32]:
    """What the runs of an (h, w) map are written to: `first`, and the other columns of `LabelRuns` as (3, most)."""
    return borrow("first run", (height + 1,), np.int32), borrow("runs of labels", (3, height * width + 1), np.int32)


def label_runs(labels: Int32) -> Found:
    """Runs of an (h, w) int32 map, C-contiguous, and the largest label, 0 if there is none.

    Raises:
        ValueError: if a label is negative.
    """
    if not labels.size:
        none = np.zeros(0, np.int32)
        return LabelRuns(np.zeros(len(labels) + 1, np.int32), none, none, none), 0
    first, room = room_for_label_runs(*labels.shape)
    count, lowest, highest = _find_label_runs(labels, first, *room)
    if lowest < 0:
        raise ValueError("a label map has numbers from 0, got a negative one")
    return LabelRuns(first, *room[:, :count]), highest


@kernel
def _find_label_runs(labels: Array, first: Array, start: Array, stop: Array, label: Array) -> tuple[int, int, int]:
    """Fill the columns of `LabelRuns`; how many runs there are, and the lowest and highest label, or 0."""
    height, width = labels.shape
    words = width // 64 + 1
    differs = np.zeros(64 * words, np.uint8)  # 1 where the label is not that on the left
    eights = differs.view(np.uint64)
    count = 0
    for r in range(height):
        first[r] = count
        row = labels[r]
        differs[0] = row[0] != 0
        for c in range(1, width):
            differs[c] = row[c] != row[c - 1]
        inside = 0
        for k in range(words):
            changes = pack(eights, 8 * k)
            while changes:
                c = 64 * k + lowest_bit(changes)
                changes &= changes - np.uint64(1)
                if inside:
                    stop[count] = c
                    count += 1
                inside = row[c]
                start[count], label[count] = c, inside
        if inside:
            stop[count] = width
            count += 1
    first[height] = count
    lowest, highest = np.int32(0), np.int32(0)
    for i in range(count):
        lowest, highest = min(lowest, label[i]), max(highest, label[i])
    return count, int(lowest), int(highest)
