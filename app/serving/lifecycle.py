"""May this process be sent work: is it starting, ready, failed or draining?

starting --(model proven)--> ready --(SIGTERM)--> draining
    \\--(model refused)--> failed    stays up and says so; other replicas serve on
"""

from __future__ import annotations

import threading
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

    def __init__(self) -> None:
        self._state = State.STARTING
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

    def start(self, bring_up: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Bring the model up in the background; ready when it returns, failed when it raises.

        Args:
            bring_up: loads, proves and warms up; may take minutes.
            failed: told why, from the background thread.
        """

        def work() -> None:
            try:
                bring_up()
            except Exception as error:
                self._leave_start(State.FAILED)
                failed(error)
            else:
                self._leave_start(State.READY)

        # A daemon: a start that hangs must not keep the process from stopping.
        self._thread = threading.Thread(target=work, name="karyon-start", daemon=True)
        self._thread.start()

    def wait_started(self, timeout_s: float | None = None) -> bool:
        """Wait until the start is over; whether it is."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self.started

    def drain(self) -> None:
        """Take no new work from now on. Safe in a signal handler."""
        with self._lock:
            self._state = State.DRAINING

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

    def _leave_start(self, state: State) -> None:
        with self._lock:
            if self._state is State.STARTING:  # draining stays draining
                self._state = state
