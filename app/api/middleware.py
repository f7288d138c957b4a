"""What happens to every request, whatever it asks: an id, a notice, limits, one log line, an answer in any case?

Pure ASGI: a middleware built on Starlette's `BaseHTTPMiddleware` hides the caller's hanging up from the routes.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from anyio import move_on_after
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import ClientGone, RequestTimeout, problem
from app.nuclei.errors import Overloaded, PayloadTooLarge, Refusal, UnsupportedMediaType
from app.telemetry import Metrics, Record, Report, log, log_request

RETRY_S = 1
NOTICE = "research-use-only"
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLASS_OF = {"/v1/segment": "interactive", "/v1/segment/batch": "bulk"}  # unless the caller lowered it
UPLOADS = "/v1/slides"  # where slide files are sent, which are larger than any other body
STATUS_OF_THE_GONE = 499  # never sent: nobody is there to read it


@dataclass(frozen=True)
class Accounted:
    """Gives each request an id and a record, marks each response, and writes metrics and one log line at its end."""

    app: ASGIApp
    metrics: Metrics
    report: Report = log_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = Record(request_id(Headers(scope=scope).get("x-request-id")))
        scope.setdefault("state", {})["record"] = record
        began, status = time.perf_counter(), 500

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mark(MutableHeaders(scope=message), record)
            await send(message)

        try:
            await self.app(scope, receive, marked)
        finally:
            self._account(scope, record, status, time.perf_counter() - began)

    def _account(self, scope: Scope, record: Record, status: int, seconds: float) -> None:
        status = STATUS_OF_THE_GONE if record.cancelled else status
        route, outcome = getattr(scope.get("route"), "path", "unmatched"), record.outcome(status)
        kind = record.work_class or CLASS_OF.get(route, "none")
        self.metrics.requests.labels(route, kind, outcome, record.model).inc()
        self.metrics.observe_stages(record)
        if kind != "none":
            self.metrics.request_seconds.labels(kind, outcome).observe(seconds)
            if outcome == "rejected":
                self.metrics.rejected.labels(record.slug, kind).inc()
        method = scope["method"] if scope["method"] in METHODS else "other"
        facts = {"method": method, "route": route, "status": status, "outcome": outcome, "class": kind}
        self.report(record, facts | {"nuclei": record.nuclei, "duration_s": round(seconds, 6)})


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def request_id(given: str | None) -> str:
    """The caller's id if it is short and plain, else a new one."""
    return given if given and SANE_ID.fullmatch(given) else uuid.uuid4().hex


def mark(headers: MutableHeaders, record: Record) -> None:
    """Add what every response carries."""
    headers["X-Request-Id"] = record.request_id
    headers["Karyon-Notice"] = NOTICE
    headers["X-Content-Type-Options"] = "nosniff"


@dataclass(frozen=True)
class Answered:
    """Turns what no handler caught into a problem, so that even a programming error leaks nothing but its id."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        record: Record = scope["state"]["record"]
        try:
            await self.app(scope, receive, watched)
        except (ClientGone, ClientDisconnect):
            record.cancelled = True
        except Exception as error:
            if not isinstance(error, Refusal):
                log("unexpected error", logging.ERROR, error, request_id=record.request_id)
            if started:
                raise
            await problem(error, record)(scope, receive, send)


@dataclass
class Bodies:
    """Bytes of all bodies that are being received or used; used from the event loop alone.

    Attributes:
        most: bytes.
        held: now.
    """

    most: int
    held: int = 0

    def take(self, size: int) -> None:
        """Hold so many more.

        Raises:
            Overloaded: there would be more than `most`.
        """
        if self.held + size > self.most:
            raise Overloaded(f"{self.held} bytes of other requests are being received or used", RETRY_S)
        self.held += size


@dataclass(frozen=True)
class BodyLimited:
    """Refuses a body above a number of bytes: by its announced length, and while it is being received; one that is
    packed, whose bytes would say nothing about its length; one that stops arriving; and any while those of all requests
    together take too much memory.

    Attributes:
        app: what comes next.
        max_bytes: of a body.
        bodies: of all requests.
        stall_s: seconds without a byte after which nobody waits for the rest.
        elsewhere: other limits, by path, of bodies that are not kept in memory.
    """

    app: ASGIApp
    max_bytes: int
    bodies: Bodies
    stall_s: float
    elsewhere: Mapping[str, int] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        packed = headers.get("content-encoding", "identity").strip().lower() not in ("identity", "")
        most = self.elsewhere.get(scope["path"], self.max_bytes)
        too_long = announced.isdecimal() and int(announced[:19]) > most
        is_kept, received, more = scope["path"] not in self.elsewhere, 0, True

        async def counted() -> Message:
            nonlocal received, more
            if too_long:  # only now: who may not call, or calls too early, is told that first
                raise _too_large(most)
            if packed:
                raise UnsupportedMediaType("a body is taken as it is: send it without Content-Encoding")
            if not more:  # what comes behind the body is the caller's hanging up, whenever that is
                return await receive()
            message = await self._next(receive)
            size, more = len(message.get("body", b"")), message.get("more_body", False)
            if received + size > most:
                raise _too_large(most)
            if is_kept:
                self.bodies.take(size)
            received += size
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            if is_kept:
                self.bodies.held -= received

    async def _next(self, receive: Receive) -> Message:
        with move_on_after(self.stall_s):
            return await receive()
        raise RequestTimeout(f"no byte of the body came for {self.stall_s:g} s")


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has more than the {most} bytes that are accepted")
