"""Which pixel is next?

The flood of one blob, in linear time: a list of pixels per level of energy, and a tree of bits that finds the lowest
level that has one.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from app.nuclei.jit import Array, kernel, lowest_bit

LEVELS = 1 << 16


class _Queue(threading.local):
    """Each thread's empty queue, see `flood_box`; a flood leaves it empty for the next."""

    def __init__(self) -> None:
        self.arrays = (
            np.zeros(LEVELS, np.uint32),
            np.zeros(LEVELS, np.uint32),
            np.empty(LEVELS, np.uint32),
            np.zeros(LEVELS >> 6, np.uint64),
            np.zeros(LEVELS >> 12, np.uint64),
        )


queue = _Queue()


@kernel
def flood_box(
    label: Array, level: Array, wide: int, link: Array,
    seeds: Array, head: Array, tail: Array, bits: Array, summary: Array,
) -> None:  # fmt: skip
    """Flood a box in place.

    Args:
        label: (cells,) int32, rows of `wide` cells, -1 outside the blob, 0 free, else label; two rows above, two below
            and a column on either side are outside.
        level: (cells,) uint16, lowest first; of the blob alone.
        link: (cells,) uint32 of any content.
        seeds, head, tail, bits, summary: the thread's queue.

    The queue is two lists of pixels per level, of markers (`seeds`) and of others (`head`, `tail`), joined by `link`,
    and a tree of bits over the levels that have any: `bits`, `summary` over its words, `top` over those of `summary`.
    All of it is empty before and after. The level never sinks: what lies lower joins the list that is being worked off.
    A pixel without a free neighbour never enters the queue: it could give its label to nobody. A list ends with 0, a
    cell of the frame; places and levels are unsigned, as an index that may be negative costs a test each time.
    """
    p: Any
    one, row = np.uint64(1), np.uint64(wide)
    around = np.empty(4, np.int64)  # as `_spread` counts them
    around[0], around[1], around[2], around[3] = -wide, -1, 1, wide
    top = np.uint64(0)
    for cell in range(len(label) - 2 * wide - 1, 2 * wide - 1, -1):
        p = np.uint64(cell)
        if label[p] > 0 and _has_free_neighbour(label, p, row):
            k = np.uint64(level[p])
            link[p] = seeds[k]
            seeds[k] = p
            top |= _mark(k, bits, summary)
    while top:
        s = np.uint64(lowest_bit(top))
        word = (s << np.uint64(6)) + np.uint64(lowest_bit(summary[s]))
        k = (word << np.uint64(6)) + np.uint64(lowest_bit(bits[word]))
        seed: Any = np.uint64(seeds[k])
        seeds[k] = 0
        while seed:
            last: Any = seed
            p = seed
            seed = np.uint64(link[p])
            link[last] = 0
            while p:
                ready = _spread(label, p, row)
                while ready:
                    q = np.uint64(np.int64(p) + around[lowest_bit(ready)])
                    ready &= ready - one
                    link[q] = 0
                    if level[q] < k:
                        link[last] = q
                        last = q
                    else:
                        top |= _push(q, np.uint64(level[q]), head, tail, bits, summary, link)
                p = np.uint64(link[p])
        p = np.uint64(head[k])
        while p:
            ready = _spread(label, p, row)
            while ready:
                q = np.uint64(np.int64(p) + around[lowest_bit(ready)])
                ready &= ready - one
                link[q] = 0
                top |= _push(q, max(np.uint64(level[q]), k), head, tail, bits, summary, link)
            p = np.uint64(link[p])
        head[k] = 0
        bits[word] &= bits[word] - one
        if not bits[word]:
            summary[s] &= summary[s] - one
            if not summary[s]:
                top &= top - one


@kernel
def _spread(label: Array, p: np.uint64, row: np.uint64) -> np.uint64:
    """Give the label of p to its free neighbours; a bit each for above, left, right, below, if it was free and has a
    free neighbour in turn.

    All twelve pixels that matter are looked at, without branches: which of them are free cannot be foreseen.
    """
    one, two, mine = np.uint64(1), np.uint64(2), label[p]
    up, left, right, down = label[p - row], label[p - one], label[p + one], label[p + row]
    label[p - row] = mine if up == 0 else up
    label[p - one] = mine if left == 0 else left
    label[p + one] = mine if right == 0 else right
    label[p + row] = mine if down == 0 else down
    up_left, up_right = label[p - row - one] == 0, label[p - row + one] == 0
    down_left, down_right = label[p + row - one] == 0, label[p + row + one] == 0
    go_up = (up == 0) & ((label[p - two * row] == 0) | up_left | up_right)
    go_left = (left == 0) & ((label[p - two] == 0) | up_left | down_left)
    go_right = (right == 0) & ((label[p + two] == 0) | up_right | down_right)
    go_down = (down == 0) & ((label[p + two * row] == 0) | down_left | down_right)
    return (
        np.uint64(go_up) | np.uint64(go_left) << one | np.uint64(go_right) << two | np.uint64(go_down) << np.uint64(3)
    )


@kernel
def _has_free_neighbour(label: Array, p: np.uint64, wide: np.uint64) -> bool:
    one = np.uint64(1)
    any_free: bool = (label[p - wide] == 0) | (label[p - one] == 0) | (label[p + one] == 0) | (label[p + wide] == 0)
    return any_free


@kernel
def _push(p: np.uint64, k: np.uint64, head: Array, tail: Array, bits: Array, summary: Array, link: Array) -> np.uint64:
    """Append to the list of a level; the bit of `top` that this sets."""
    if head[k]:
        link[np.uint64(tail[k])] = p
        tail[k] = p
        return np.uint64(0)
    head[k] = p
    tail[k] = p
    return _mark(k, bits, summary)  # type: ignore[no-any-return]


@kernel
def _mark(k: np.uint64, bits: Array, summary: Array) -> np.uint64:
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    word = k >> six
    bits[word] |= one << (k & low)
    summary[word >> six] |= one << (word & low)
    return one << (word >> six)
