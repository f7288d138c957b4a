"""How does the process stop so that nobody loses an answer that still fits, and everybody else is told?

signal -> unready, but serving for a moment more -> no new connections; those inside have their time -> whoever is not
answered is told that the service stops -> connections are cut. The exit status is 0.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue

import uvicorn

from app.serving.lifecycle import Lifecycle, State
from app.telemetry import log

BACKLOG = 2048
LAST_CALL_S = 3  # seconds in which those whose time is up are told so, before connections are cut


class Server(uvicorn.Server):
    """uvicorn that is unready from the first signal on, serves for a moment more, and ends with status 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        delay_s: float = 0.0,
        last_call: Callable[[], None] = lambda: None,
    ) -> None:
        """Not listening yet.

        Args:
            config: of uvicorn.
            lifecycle: is told to drain.
            delay_s: for so long new requests are served after the first signal.
            last_call: refuses what is not done when time is up, shortly before connections are cut.
        """
        super().__init__(config)
        self._lifecycle = lifecycle
        self._delay_s = delay_s
        self._last_call = last_call
        self._leaving: SimpleQueue[bool] = SimpleQueue()  # True: asked to; False: nobody will ask any more

    def handle_exit(self, sig: int, frame: object) -> None:
        """Drain, then stop. The signal is not recorded, or uvicorn would raise it again at its end.

        A signal may stand in the middle of anything, also of the start of a thread, whose lock is held then: so nothing
        is done here but what may be done anywhere.
        """
        if self._lifecycle.state is State.DRAINING:  # asked a second time
            self.force_exit = self.should_exit = True
            return
        self._lifecycle.drain(self._delay_s)
        self._leaving.put(True)

    def _leave(self) -> None:
        if not self._leaving.get():
            return
        time.sleep(self._delay_s)
        self.should_exit = True
        if self.config.timeout_graceful_shutdown is not None:
            time.sleep(max(0.0, self.config.timeout_graceful_shutdown - LAST_CALL_S))
            self._last_call()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where: with port 0 nobody else knows."""
        threading.Thread(target=self._leave, name="karyon-leave", daemon=True).start()  # it keeps nobody from ending
        await super().startup(sockets)
        for server in self.servers:
            for own in server.sockets:
                host, port = own.getsockname()[:2]
                log("listening", host=host, port=port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for what runs, and end the application."""
        await super().shutdown(sockets)
        self._leaving.put(False)


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets at every address of a host, before anything is loaded.

    Raises:
        OSError: one cannot be had.
    """
    with ExitStack() as held:
        sockets = []
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                own = socket.create_server(address[:2], family=family, backlog=BACKLOG)
            except OSError as error:
                raise OSError(
                    error.errno, f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}"
                ) from error
            sockets.append(held.enter_context(own))
        yield sockets
