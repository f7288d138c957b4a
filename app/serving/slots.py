"""Who separates nuclei now? A few at a time, those who wait at a screen first.

More at once than there are cores would take turns on them, and hold more memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from app.serving.work import WorkClass

IN_A_ROW = 8  # interactive ones before a bulk one that waits has its turn


class Slots:
    """A fixed number of slots; threads wait for one in order of arrival within their class."""

    def __init__(self, count: int) -> None:
        """All free.

        Args:
            count: slots, at least 1.
        """
        self.count = count
        self._free = count
        self._lock = threading.Lock()
        self._waiting: dict[WorkClass, deque[threading.Event]] = {one: deque() for one in WorkClass}
        self._row = 0

    @property
    def in_use(self) -> int:
        """Slots that are taken."""
        return self.count - self._free

    @contextmanager
    def slot(self, work_class: WorkClass) -> Iterator[None]:
        """Hold one slot; blocks until it is this thread's turn."""
        turn = threading.Event()
        with self._lock:
            self._waiting[work_class].append(turn)
            self._hand_out()
        turn.wait()
        try:
            yield
        finally:
            with self._lock:
                self._free += 1
                self._hand_out()

    def _hand_out(self) -> None:
        while self._free and (queue := self._next()):
            self._free -= 1
            queue.popleft().set()

    def _next(self) -> deque[threading.Event]:
        first, second = (self._waiting[one] for one in WorkClass)
        if first and (not second or self._row < IN_A_ROW):
            self._row = self._row + 1 if second else 0
            return first
        self._row = 0
        return second
