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
            np.full(LEVELS, -1, np.int32),
            np.full(LEVELS, -1, np.int32),
            np.empty(LEVELS, np.int32),
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
        link: (cells,) int32 of any content.
        seeds, head, tail, bits, summary: the thread's queue.


    The queue is two lists of pixels per level, of markers (`seeds`) and of others (`head`, `tail`), joined by `link`,
    and a tree of bits over the levels that have any: `bits`, `summary` over its words, `top` over those of `summary`.
    All of it is empty before and after. The level never sinks: what lies lower joins the list that is being worked off.
    A pixel without a free neighbour never enters the queue: it could give its label to nobody.
    """
    p: Any  # integers of NumPy and of Python take turns
    top = np.uint64(0)
    for p in range(len(label) - wide - 1, wide - 1, -1):
        if label[p] > 0 and _has_free_neighbour(label, p, wide):
            k = np.int64(level[p])
            link[p] = seeds[k]
            seeds[k] = p
            top |= _mark(k, bits, summary)
    while top:
        s = lowest_bit(top)
        word = (s << 6) + lowest_bit(summary[s])
        k = (word << 6) + lowest_bit(bits[word])
        seed: Any = np.int64(seeds[k])
        seeds[k] = -1
        while seed >= 0:
            last: Any = seed
            p = seed
            seed = np.int64(link[p])
            link[last] = -1
            while p >= 0:
                for q in (p - wide, p - 1, p + 1, p + wide):
                    if label[q] == 0:
                        label[q] = label[p]
                        if _has_free_neighbour(label, q, wide):
                            link[q] = -1
                            if level[q] < k:
                                link[last] = q
                                last = q
                            else:
                                top |= _push(q, np.int64(level[q]), head, tail, bits, summary, link)
                p = np.int64(link[p])
        p = np.int64(head[k])
        while p >= 0:
            for q in (p - wide, p - 1, p + 1, p + wide):
                if label[q] == 0:
                    label[q] = label[p]
                    if _has_free_neighbour(label, q, wide):
                        link[q] = -1
                        top |= _push(q, max(np.int64(level[q]), k), head, tail, bits, summary, link)
            p = np.int64(link[p])
        head[k] = -1
        bits[word] &= bits[word] - np.uint64(1)
        if not bits[word]:
            summary[s] &= summary[s] - np.uint64(1)
            if not summary[s]:
                top &= top - np.uint64(1)


@kernel
def _has_free_neighbour(label: Array, p: int, wide: int) -> bool:
    any_free: bool = (label[p - wide] == 0) | (label[p - 1] == 0) | (label[p + 1] == 0) | (label[p + wide] == 0)
    return any_free


@kernel
def _push(p: int, k: int, head: Array, tail: Array, bits: Array, summary: Array, link: Array) -> np.uint64:
    """Append to the list of a level; the bit of `top` that this sets."""
    if head[k] >= 0:
        link[tail[k]] = p
        tail[k] = p
        return np.uint64(0)
    head[k] = p
    tail[k] = p
    return _mark(k, bits, summary)  # type: ignore[no-any-return]


@kernel
def _mark(k: int, bits: Array, summary: Array) -> np.uint64:
    bits[k >> 6] |= np.uint64(1) << np.uint64(k & 63)
    summary[k >> 12] |= np.uint64(1) << np.uint64((k >> 6) & 63)
    return np.uint64(1) << np.uint64(k >> 12)
