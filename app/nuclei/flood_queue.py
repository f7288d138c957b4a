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
def flood_box(  # noqa: PLR0912 - one loop that stays in registers
    label: Array, level: Array, wide: int, link: Array,
    seeds: Array, head: Array, tail: Array, bits: Array, summary: Array,
) -> None:  # fmt: skip
    """Flood a box in place.

    Args:
        label: (cells,) int32, rows of `wide` cells with a frame: -1 outside the blob, 0 free, else label.
        level: (cells,) uint16, lowest first; of the blob alone.
        link: (cells,) uint32 of any content.
        seeds, head, tail, bits, summary: the thread's queue.


    The queue is two lists of pixels per level, of markers (`seeds`) and of others (`head`, `tail`), joined by `link`,
    where 0, a corner of the frame, ends a list, and a tree of bits over the levels that have any: `bits`, `summary`
    over its words, `top` over those of `summary`. All of it is empty before and after. The level never sinks: what lies
    lower joins the list that is being worked off. A pixel without a free neighbour never enters the queue: it could
    give its label to nobody. Places and levels are unsigned, as numba looks twice at an index that may be negative.
    """
    p: Any  # integers of NumPy and of Python take turns
    one, down = np.uint64(1), np.uint64(wide)
    top = np.uint64(0)
    for i in range(wide, len(label) - wide):
        free = (label[i - wide] == 0) | (label[i - 1] == 0) | (label[i + 1] == 0) | (label[i + wide] == 0)
        link[i] = free & (label[i] > 0)
    for i in range(len(label) - wide - 1, wide - 1, -1):
        if link[i]:
            k = np.uint64(level[i])
            link[i] = seeds[k]
            seeds[k] = i
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
                for q in (p - down, p - one, p + one, p + down):
                    if label[q] == 0:
                        label[q] = label[p]
                        if _has_free_neighbour(label, q, down):
                            link[q] = 0
                            if level[q] < k:
                                link[last] = q
                                last = q
                            else:
                                top |= _push(q, np.uint64(level[q]), head, tail, bits, summary, link)
                p = np.uint64(link[p])
        p = np.uint64(head[k])
        while p:
            for q in (p - down, p - one, p + one, p + down):
                if label[q] == 0:
                    label[q] = label[p]
                    if _has_free_neighbour(label, q, down):
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
def _has_free_neighbour(label: Array, p: np.uint64, down: np.uint64) -> bool:
    one = np.uint64(1)
    any_free: bool = (label[p - down] == 0) | (label[p - one] == 0) | (label[p + one] == 0) | (label[p + down] == 0)
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
    one, six, twelve, low = np.uint64(1), np.uint64(6), np.uint64(12), np.uint64(63)
    bits[k >> six] |= one << (k & low)
    summary[k >> twelve] |= one << ((k >> six) & low)
    return one << (k >> twelve)
