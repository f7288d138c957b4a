"""Is there room for one more request, and if not, when is it worth asking again?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.nuclei.errors import Overloaded

RECENT = 0.1  # weight of the newest service time in the moving mean
JITTER = 0.25  # at most this share is added, so that the refused do not return as one
LONGEST_WAIT_S = 120


class WaitingRoom:
    """A fixed number of places; who finds none is refused at once, and every place comes back.

    Used from the event loop alone, so it needs no lock.
    """

    def __init__(self, places: int, workers: int, jitter: Callable[[], float] = random.random) -> None:
        """An empty room.

        Args:
            places: requests held at once, running ones included.
            workers: requests served side by side.
            jitter: draws from 0..1.
        """
        self._places = places
        self._workers = workers
        self._jitter = jitter
        self._inside = 0
        self._mean_s = 1.0

    @property
    def inside(self) -> int:
        """Requests in the room now."""
        return self._inside

    def check(self) -> None:
        """Refuse without taking a place.

        Raises:
            Overloaded: if every place is taken.
        """
        if self._inside >= self._places:
            raise Overloaded(f"all {self._places} places are taken", self.retry_after_s())

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one place.

        Raises:
            Overloaded: if every place is taken.
        """
        self.check()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def served(self, seconds: float) -> None:
        """Learn how long one request took once its turn had come."""
        self._mean_s += RECENT * (seconds - self._mean_s)

    def retry_after_s(self) -> int:
        """Seconds until those inside are served at the present rate, jittered, 1..120."""
        return seconds_to_wait(self._inside * self._mean_s / self._workers, self._jitter)


def seconds_to_wait(ahead_s: float, jitter: Callable[[], float] = random.random) -> int:
    """What a refused caller is told: the seconds of the work ahead, with 0 to 25 % jitter added, 1..120."""
    return max(1, math.ceil(min(LONGEST_WAIT_S, math.ceil(ahead_s) * (1 + JITTER * jitter()))))
