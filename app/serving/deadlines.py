"""Which of the queued items must be answered first, and which can no longer be?"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from app.serving.work import Work

Entry = tuple[float, float, int, Work]
SLACK = 64  # entries of items long gone that are not worth a clean-up


class Deadlines:
    """The deadlines of the items in a mapping that somebody else keeps.

    One heap per cost: items of equal cost become unattainable in the order of their deadlines, whatever the cost
    model has learnt meanwhile. (All patches of a bucket cost the same, so there is one heap.) An item that leaves
    the mapping leaves its entry behind; entries are dropped when they surface, or all at once when they are many.
    """

    def __init__(self, items: Mapping[int, Work]) -> None:
        """Deadlines of `items`, by id; those already in it are not known yet."""
        self._items = items
        self._heaps: dict[float, list[Entry]] = {}
        self._serial = count()
        self._entries = 0

    def add(self, item: Work) -> None:
        """Watch an item of the mapping."""
        self._push(item)
        if self._entries > 2 * len(self._items) + SLACK:
            self._rebuild()

    def earliest(self) -> tuple[float, float]:
        """(deadline, enqueued) of the item that must be answered first; there must be one."""
        return min(heap[0][:2] for _, heap in self._trimmed())

    def lost(self, now: float, estimate: Callable[[float], float]) -> list[Work]:
        """Items that would miss their deadline even if they started now; they are watched no longer.

        Args:
            now: the time.
            estimate: cost to seconds.
        """
        lost: dict[int, Work] = {}  # an item that came back has two entries
        for cost, heap in self._trimmed():
            end = now + estimate(cost)
            while heap and end > heap[0][0]:
                item = self._pop(heap)
                lost[item.id] = item
                self._trim(heap)
        return list(lost.values())

    def _push(self, item: Work) -> None:
        entry = (item.deadline, item.enqueued, next(self._serial), item)
        heapq.heappush(self._heaps.setdefault(item.cost, []), entry)
        self._entries += 1

    def _pop(self, heap: list[Entry]) -> Work:
        self._entries -= 1
        return heapq.heappop(heap)[-1]

    def _trimmed(self) -> Iterator[tuple[float, list[Entry]]]:
        for cost, heap in list(self._heaps.items()):
            self._trim(heap)
            if heap:
                yield cost, heap
            else:
                del self._heaps[cost]

    def _trim(self, heap: list[Entry]) -> None:
        while heap and self._items.get(heap[0][-1].id) is not heap[0][-1]:
            self._pop(heap)

    def _rebuild(self) -> None:
        self._heaps.clear()
        self._entries = 0
        for item in self._items.values():
            self._push(item)
