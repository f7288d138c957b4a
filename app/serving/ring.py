"""How do several take turns when each has a queue, or is again a ring of those who take turns?

Deficit round robin (Shreedhar and Varghese, 1996), nested: a lane is a ring of tenants, a tenant is a ring of its
requests, a request is a queue of patches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.serving.work import Work

K = TypeVar("K")
V = TypeVar("V")


class Flow(Protocol):
    """Items in an order of their own."""

    def __len__(self) -> int:
        """0 if there are no items."""
        ...

    def add(self, item: Work) -> None:
        """Queue an item."""
        ...

    def remove(self, item: Work) -> None:
        """Take an item out, wherever it stands."""
        ...

    def head(self) -> Work:
        """The item whose turn it is; there must be one. It stays, and is the same until it is removed."""
        ...

    def pay(self, item: Work) -> None:
        """The head is about to be served."""
        ...

    def oldest(self) -> Iterator[Work]:
        """Items among which the oldest one is."""
        ...


class Queue:
    """Items in order of arrival; one can be taken out of the middle at once."""

    def __init__(self) -> None:
        """Empty."""
        self._items: OrderedDict[int, Work] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Work) -> None:
        """See `Flow`."""
        self._items[item.id] = item

    def remove(self, item: Work) -> None:
        """See `Flow`."""
        del self._items[item.id]

    def head(self) -> Work:
        """See `Flow`."""
        return first(self._items)

    def pay(self, item: Work) -> None:
        """See `Flow`; nobody shares a queue, so nothing is owed."""

    def oldest(self) -> Iterator[Work]:
        """See `Flow`."""
        yield first(self._items)


@dataclass(slots=True)
class Member:
    """One of those who take turns: its items, and the cost that it may still spend in this round."""

    flow: Flow
    deficit: float


class Ring:
    """Deficit round robin over members.

    The member whose turn it is spends its deficit on its head. When that costs more than is left, the member gets a
    quantum for its next turn and goes to the back. So an item that costs more than the quantum waits until its member
    has saved enough, and of two members that always have items none gets ahead by more than a quantum and one item.
    A member without items leaves, and its deficit is forgotten; one that comes (again) goes to the back, so however
    many come, each that waits is served once a round.
    """

    def __init__(self, quantum: float, key: Callable[[Work], Hashable], flow: Callable[[], Flow] = Queue) -> None:
        """Nobody yet.

        Args:
            quantum: cost that each member may spend per round, positive.
            key: whose an item is.
            flow: makes the order within a member.
        """
        self._quantum = quantum
        self._key = key
        self._flow = flow
        self._members: OrderedDict[Hashable, Member] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> set[Hashable]:
        """Those who have items."""
        return set(self._members)

    def add(self, item: Work) -> None:
        """Queue an item with its member; a new one goes to the back."""
        key = self._key(item)
        if key not in self._members:
            self._members[key] = Member(self._flow(), self._quantum)
        self._members[key].flow.add(item)

    def remove(self, item: Work) -> None:
        """Take an item out, wherever it stands."""
        key = self._key(item)
        flow = self._members[key].flow
        flow.remove(item)
        if not flow:
            del self._members[key]

    def head(self) -> Work:
        """The item whose turn it is; there must be one."""
        while True:
            key, member = next(iter(self._members.items()))
            item = member.flow.head()
            if item.cost <= member.deficit:
                return item
            member.deficit += self._quantum
            self._members.move_to_end(key)

    def pay(self, item: Work) -> None:
        """The head is about to be served; its member pays, and within it whoever shares."""
        member = self._members[self._key(item)]
        member.deficit -= item.cost
        member.flow.pay(item)

    def oldest(self) -> Iterator[Work]:
        """The first of each queue."""
        for member in self._members.values():
            yield from member.flow.oldest()


def first(ordered: OrderedDict[K, V]) -> V:
    """The value that came first; there must be one."""
    return next(iter(ordered.values()))
