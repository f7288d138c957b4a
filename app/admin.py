"""Who answers probes and scrapes if the event loop is stuck? A small server in a thread of its own, on loopback.

It speaks of the same process as the main port: `/healthz/startup`, `/healthz/ready`, `/healthz/live` and `/metrics`.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from app.api import health
from app.api.errors import PROBLEM, problem_body
from app.api.observing import refresh
from app.api.services import Services
from app.nuclei.errors import NotFound, Refusal
from app.telemetry import Record

LOOPBACK = "127.0.0.1"


class Admin:
    """The server; listens from the start on."""

    def __init__(self, services: Services, port: int) -> None:
        """Not answering yet.

        Args:
            services: of the application.
            port: on loopback; 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        self._server = ThreadingHTTPServer((LOOPBACK, port), _handler(services))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="karyon-admin", daemon=True)
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(services: Services) -> type[BaseHTTPRequestHandler]:
    probes: dict[str, Callable[[Services], str]] = {
        "/healthz/startup": health.startup,
        "/healthz/ready": health.ready,
        "/healthz/live": health.live,
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # a caller who says nothing does not keep a thread

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            try:
                if path == "/metrics":
                    refresh(services)
                    self._send(200, CONTENT_TYPE_LATEST, services.metrics.exposition())
                elif path in probes:
                    self._send(200, "application/json", orjson.dumps({"state": probes[path](services)}))
                else:
                    raise NotFound("there are /healthz/startup, /healthz/ready, /healthz/live and /metrics here")
            except Refusal as error:
                body = problem_body(error, Record(uuid.uuid4().hex))
                self._send(body["status"], PROBLEM, orjson.dumps(body))

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes come every second, and standard error is for JSON lines."""

    return Handler
