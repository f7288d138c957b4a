"""Whose turn is it: that of those who wait at a screen, or that of the jobs?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from app.serving.work import Batch, WorkClass


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
