"""May this process be sent work: is it starting, ready, failed or draining?

starting --(model proven)--> ready --(SIGTERM)--> draining
    \\--(model refused)--> failed    stays up and says so; other replicas serve on

A process that drains is unready at once, but serves on for a moment: those who send it requests need that long to
see that it is unready.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from enum import StrEnum

from app.nuclei.errors import Draining, NotReady


class State(StrEnum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


class Lifecycle:
    """The state of one process; readable from any thread."""

    def __init__(self, state: State = State.STARTING) -> None:
        self._state = state
        self._open_until = -math.inf
        self._lock = threading.RLock()  # a signal may arrive inside `drain`
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    @property
    def started(self) -> bool:
        """Whether the start is over, well or badly."""
        return self._state is not State.STARTING

    def start(
        self,
        bring_up: Callable[[], None],
        failed: Callable[[Exception], None],
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Bring the model up in the background; ready when it returns, failed when it raises.

        Args:
            bring_up: loads, proves and warms up; may take minutes.
            failed: told why, from the background thread.
            ready: called there once requests are let through.
        """

        def work() -> None:
            try:
                bring_up()
            except Exception as error:
                if self._leave_start(State.FAILED):
                    failed(error)
            else:
                if self._leave_start(State.READY):
                    ready()

        # A daemon: a start that hangs must not keep the process from stopping.
        self._thread = threading.Thread(target=work, name="karyon-start", daemon=True)
        self._thread.start()

    def wait_started(self, timeout_s: float | None = None) -> bool:
        """Wait until the start is over; whether it is."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self.started

    @property
    def coming_up(self) -> bool:
        """Whether the model is still being brought up, in a process that drains too."""
        return self._thread is not None and self._thread.is_alive()

    def drain(self, delay_s: float = 0.0) -> None:
        """Be unready from now on, and take no new work after `delay_s`. Safe in a signal handler."""
        with self._lock:
            if self._state is State.READY:
                self._open_until = time.monotonic() + delay_s
            self._state = State.DRAINING

    def require_open(self) -> None:
        """Refuse new work unless ready, or draining only just.

        Raises:
            Draining, NotReady: as `require_ready`.
        """
        if self._state is not State.DRAINING or time.monotonic() >= self._open_until:
            self.require_ready()

    def require_running(self) -> None:
        """Refuse new work that needs no model only while stopping, and not at once.

        Raises:
            Draining: the process is stopping.
        """
        if self._state is State.DRAINING:
            self.require_open()

    def require_ready(self) -> None:
        """Refuse unless ready.

        Raises:
            Draining: the process is stopping.
            NotReady: it is starting, or its model was refused.
        """
        if self._state is State.DRAINING:
            raise Draining("this service is stopping; another one may take the request")
        if self._state is State.FAILED:
            raise NotReady("the model of this service did not prove itself; its log says why")
        if self._state is State.STARTING:
            raise NotReady("the model is being loaded and verified")

    def _leave_start(self, state: State) -> bool:
        with self._lock:
            left = self._state is State.STARTING  # draining stays draining
            self._state = state if left else self._state
            return left
