"""In which order are the items of one class and bucket served, so that nobody waits for another's backlog?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter

from app.serving.deadlines import Deadlines
from app.serving.ring import Ring, first
from app.serving.work import Bucket, Work, WorkClass


class Lane:
    """The items of one class and bucket: tenants take turns, and within each tenant its requests do.

    So a caller's small image does not wait for the large one that the same caller sent before it, and sending many
    requests does not get a tenant more than its turn. See `Ring` for what the turns promise.

    Attributes:
        work_class, bucket: of all items.
        cost: of all items.
    """

    def __init__(self, work_class: WorkClass, bucket: Bucket, quantum: float) -> None:
        """An empty lane.

        Args:
            work_class: of all its items.
            bucket: of all its items.
            quantum: cost that each tenant, and each request of it, may spend per round, positive.
        """
        self.work_class = work_class
        self.bucket = bucket
        self.cost = 0.0
        self._items: dict[int, Work] = {}
        self._returned: OrderedDict[int, Work] = OrderedDict()  # were sent back: first again, already paid for
        self._ring = Ring(quantum, attrgetter("tenant"), partial(Ring, quantum, attrgetter("request")))
        self._deadlines = Deadlines(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def tenants(self) -> set[str]:
        """Those who have items here."""
        return {str(one) for one in self._ring.members} | {item.tenant for item in self._returned.values()}

    @property
    def sharing(self) -> int:
        """Tenants that share what is served here, at least 1."""
        return max(1, len(self._ring))

    @property
    def oldest(self) -> float:
        """When the oldest item was enqueued; there must be one."""
        return min(item.enqueued for item in (*self._ring.oldest(), *self._returned.values()))

    @property
    def earliest(self) -> tuple[float, float]:
        """(deadline, enqueued) of the item that must be answered first; there must be one."""
        return self._deadlines.earliest()

    def add(self, item: Work) -> None:
        """Queue an item behind those of its request; a new request, or tenant, goes to the back of its ring."""
        self._ring.add(item)
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
            self._ring.remove(item)

    def head(self) -> Work:
        """The item whose turn it is; there must be one. It stays queued."""
        return first(self._returned) if self._returned else self._ring.head()

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
                self._ring.pay(item)
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
