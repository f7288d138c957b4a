"""In which order are the items of one class and bucket served, so that no tenant waits for another's backlog?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from app.serving.deadlines import Deadlines
from app.serving.work import Bucket, Work, WorkClass

K = TypeVar("K")
V = TypeVar("V")

Queue = OrderedDict[int, Work]
"""Items by id in order of arrival: a deque out of whose middle an item can be taken at once."""


@dataclass(slots=True)
class Tenant:
    """A tenant's items, and the cost that it may still spend in this round."""

    deficit: float
    queue: Queue = field(default_factory=OrderedDict)


class Lane:
    """Deficit round robin over the tenants of one class and bucket.

    The tenant whose turn it is spends its deficit on its oldest items. When the next one costs more than is left, the
    tenant gets a quantum for its next turn and goes to the back of the ring. So an item that costs more than the
    quantum waits until its tenant has saved enough, and of two tenants that always have work none gets ahead by more
    than a quantum and one item. A tenant without items leaves the ring, and its deficit is forgotten.
    """

    def __init__(self, work_class: WorkClass, bucket: Bucket, quantum: float) -> None:
        """An empty lane.

        Args:
            work_class: of all its items.
            bucket: of all its items.
            quantum: cost that each tenant may spend per round, positive.
        """
        self.work_class = work_class
        self.bucket = bucket
        self.cost = 0.0
        self._quantum = quantum
        self._items: dict[int, Work] = {}
        self._returned: Queue = OrderedDict()  # had their turn and were sent back: first again, already paid for
        self._ring: OrderedDict[str, Tenant] = OrderedDict()
        self._deadlines = Deadlines(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def tenants(self) -> set[str]:
        """Those who have items here."""
        return set(self._ring) | {item.tenant for item in self._returned.values()}

    @property
    def oldest(self) -> float:
        """When the oldest item was enqueued; there must be one."""
        heads = [_first(tenant.queue) for tenant in self._ring.values()]
        return min(item.enqueued for item in (*heads, *self._returned.values()))

    @property
    def earliest(self) -> tuple[float, float]:
        """(deadline, enqueued) of the item that must be answered first; there must be one."""
        return self._deadlines.earliest()

    def add(self, item: Work) -> None:
        """Queue an item behind those of its tenant; a new tenant goes to the back of the ring."""
        if item.tenant not in self._ring:
            self._ring[item.tenant] = Tenant(self._quantum)
        self._ring[item.tenant].queue[item.id] = item
        self._enter(item)

    def give_back(self, items: Sequence[Work]) -> None:
        """Put items that were taken, but never ran, before all others, in their order."""
        for item in reversed(items):
            self._returned[item.id] = item
            self._returned.move_to_end(item.id, last=False)
            self._enter(item)

    def remove(self, item: Work) -> None:
        """Take an item out of the middle."""
        del self._items[item.id]
        self.cost -= item.cost
        if self._returned.pop(item.id, None) is None:
            queue = self._ring[item.tenant].queue
            del queue[item.id]
            if not queue:
                del self._ring[item.tenant]

    def head(self) -> Work:
        """The item whose turn it is; there must be one. It stays queued."""
        if self._returned:
            return _first(self._returned)
        while True:
            tenant = _first(self._ring)
            item = _first(tenant.queue)
            if item.cost <= tenant.deficit:
                return item
            tenant.deficit += self._quantum
            self._ring.move_to_end(item.tenant)

    def take(self, room: float, slots: int) -> list[Work]:
        """The next items in turn that fit.

        Args:
            room: the most that they may cost together.
            slots: the most that they may be.
        """
        taken: list[Work] = []
        while self._items and len(taken) < slots and (item := self.head()).cost <= room:
            room -= item.cost
            if item.id not in self._returned:
                self._ring[item.tenant].deficit -= item.cost
            self.remove(item)
            taken.append(item)
        return taken

    def take_lost(self, now: float, estimate: Callable[[float], float]) -> list[Work]:
        """Items that can no longer be answered in time; see `Deadlines.lost`."""
        lost = self._deadlines.lost(now, estimate)
        for item in lost:
            self.remove(item)
        return lost

    def _enter(self, item: Work) -> None:
        self._items[item.id] = item
        self.cost += item.cost
        self._deadlines.add(item)


def _first(ordered: OrderedDict[K, V]) -> V:
    return next(iter(ordered.values()))
