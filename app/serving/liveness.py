"""Does the process still get anywhere, and who ends it if not?

Progress is what counts, not whether a port answers: the event loop turns, the device is well and, while there is
work, some of it gets done. A process without work is alive. The watchdog looks from a thread of its own, because the
loop that answers probes may be what hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

TICK_S = 0.1
LOOP_STUCK_S = 5.0
HANG_S = {"cpu": 120.0, "cuda": 30.0}
LONGEST_BATCHES = 5.0
LOOK_S = 1.0


class Progress(Protocol):
    """What of a runner liveness asks."""

    fault: str | None
    longest_s: float

    @property
    def healthy(self) -> bool:
        """Whether device and thread are well."""
        ...

    def stalled_s(self) -> float:
        """Seconds without progress while there is work."""
        ...

    def interrupt(self) -> None:
        """End the run that is going on."""
        ...


class Vitals:
    """Signs of life of one process; readable from any thread."""

    def __init__(
        self, progress: Progress, hang_s: float = HANG_S["cpu"], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """No tick yet, which is no bad sign.

        Args:
            progress: of the device.
            hang_s: seconds without progress at least before work counts as hung.
            clock: monotonic seconds.
        """
        self.progress = progress
        self.least_hang_s = hang_s
        self._clock = clock
        self._ticked: float | None = None

    @property
    def hang_s(self) -> float:
        """Seconds without progress after which work counts as hung."""
        return max(self.least_hang_s, LONGEST_BATCHES * self.progress.longest_s)

    def tick(self) -> None:
        """The event loop has turned."""
        self._ticked = self._clock()

    def rest(self) -> None:
        """The event loop turns no more, on purpose."""
        self._ticked = None

    def loop_silent_s(self) -> float:
        """Seconds since the event loop turned; 0 if it has not begun."""
        return 0.0 if self._ticked is None else self._clock() - self._ticked

    def complaint(self) -> str | None:
        """Why the process does not count as alive; None if it does."""
        if not self.progress.healthy:
            return "the device, or the thread that owns it, is broken"
        if self.loop_silent_s() > LOOP_STUCK_S:
            return "the event loop is stuck"
        if self.progress.stalled_s() > self.hang_s:
            return "work is waiting, but none is getting done"
        return None

    def is_hopeless(self) -> bool:
        """Whether only a new process helps."""
        stuck = max(self.loop_silent_s(), self.progress.stalled_s())
        return not self.progress.healthy or stuck > self.hang_s


class Watchdog:
    """Interrupts a run at half the time after which it counts as hung, and ends a process that is not alive."""

    def __init__(self, vitals: Vitals, end: Callable[[str], None], look_s: float = LOOK_S) -> None:
        """Not watching yet.

        Args:
            vitals: of the process.
            end: told why; does not return, in a real process.
            look_s: seconds between looks, and the time that a broken process has to answer its callers.
        """
        self._vitals = vitals
        self._end = end
        self._look_s = look_s
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="karyon-watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._off.set()
        self._thread.join()

    def _watch(self) -> None:
        hopeless = False
        while not self._off.wait(self._look_s):
            if hopeless:
                self._end(self._vitals.complaint() or "no progress")
                return
            hopeless = self._vitals.is_hopeless()
            if self._vitals.progress.stalled_s() > self._vitals.hang_s / 2:
                self._vitals.progress.interrupt()
