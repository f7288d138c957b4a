"""Whose turn is it: that of those who wait at a screen, or that of the jobs? And of which bucket among them?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count

from app.serving.lane import Lane
from app.serving.work import Batch, Bucket, Work, WorkClass


class Turns:
    """Weighted fair sharing of the device between the two classes.

    Each class has a clock that runs by device time / weight while the device works for it; the class whose clock is
    behind goes next. Strict priority would starve bulk; here it keeps its weight's share of a busy device.
    """

    def __init__(self, weights: Mapping[WorkClass, float]) -> None:
        """Both classes level.

        Args:
            weights: shares of the device when both classes always have work.
        """
        self._weights = dict(weights)
        self._clock = dict.fromkeys(WorkClass, 0.0)
        self._last: WorkClass | None = None

    def next(self, waiting: Collection[WorkClass], in_flight: Iterable[Batch]) -> WorkClass:
        """The class to serve; ties go to interactive.

        Args:
            waiting: classes with something queued, at least one.
            in_flight: batches that are not charged yet; they count with their estimates.
        """
        clock = dict(self._clock)
        for batch in in_flight:
            self._advance(clock, batch, batch.estimate_s)
        return min((one for one in WorkClass if one in waiting), key=clock.__getitem__)

    def picked(self, work_class: WorkClass) -> None:
        """A batch was picked because it was this class's turn."""
        self._last = work_class

    def charge(self, batch: Batch, seconds: float) -> None:
        """The device worked for a batch; each class pays for its share of the cost."""
        self._advance(self._clock, batch, seconds)

    def wake(self, work_class: WorkClass) -> None:
        """A class that had nothing queued or running has work again: it starts level with the other.

        It brings no credit from its sleep, and no debt either, unless the last turn was its own: a client that asks
        again the moment it is answered would never let the other class in.
        """
        level = self._clock[work_class.other]
        if self._last is work_class:
            level = max(level, self._clock[work_class])
        self._clock[work_class] = level

    def seconds_until_done(self, own: float, others: float, work_class: WorkClass) -> float:
        """Seconds until a class's backlog is done, if both classes are served by their weights meanwhile.

        Args:
            own: seconds of its backlog.
            others: seconds of the other class's backlog.
            work_class: the class.
        """
        return own + min(others, own * self._weights[work_class.other] / self._weights[work_class])

    def _advance(self, clock: dict[WorkClass, float], batch: Batch, seconds: float) -> None:
        for one, share in batch.shares.items():
            clock[one] += seconds * share / self._weights[one]


class BucketTurns:
    """Fair sharing of one class's turns between its buckets, by the tenants that wait in each.

    Each bucket has a clock that runs by the cost served there per tenant; the bucket whose clock is behind goes next.
    Deadlines play no part: unless a caller sets one they follow arrival, so that a large image would hold back all
    that comes after it in other buckets, and one who sets short ones would go before all others.
    """

    def __init__(self) -> None:
        """All level."""
        self._clock: dict[Bucket, float] = {}
        self._served: dict[Bucket, int] = {}
        self._turns = count(1)

    def wake(self, bucket: Bucket, waiting: Collection[Bucket]) -> None:
        """A bucket that had nothing queued has work again: without credit for its sleep, but with its debts.

        Args:
            bucket: that wakes.
            waiting: others with something queued.
        """
        clocks = [self._clock[one] for one in waiting]
        level = min(clocks) if clocks else max(self._clock.values(), default=0.0)
        self._clock[bucket] = max(level, self._clock.get(bucket, 0.0))

    def next(self, waiting: Iterable[Bucket]) -> Bucket:
        """The bucket to serve; a tie goes to the one whose last turn is longest ago.

        Args:
            waiting: buckets with something queued, at least one.
        """
        return min(waiting, key=lambda one: (self._clock[one], self._served.get(one, 0)))

    def take(self, lane: Lane, room: float, slots: int) -> list[Work]:
        """Serve a bucket: see `Lane.take`."""
        sharing, items = lane.sharing, lane.take(room, slots)
        if items:
            self._clock[lane.bucket] += sum(item.cost for item in items) / sharing
            self._served[lane.bucket] = next(self._turns)
        return items

    def give_back(self, lane: Lane, items: Sequence[Work]) -> None:
        """It was not served after all: see `Lane.give_back`."""
        lane.give_back(items)
        self._clock[lane.bucket] -= sum(item.cost for item in items) / lane.sharing
