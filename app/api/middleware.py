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

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import ClientGone, problem
from app.nuclei.errors import PayloadTooLarge, Refusal, UnsupportedMediaType
from app.telemetry import Metrics, Record, Report, log, log_request

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
        except ClientGone:
            record.cancelled = True
        except Exception as error:
            if not isinstance(error, Refusal):
                log("unexpected error", logging.ERROR, error, request_id=record.request_id)
            if started:
                raise
            await problem(error, record)(scope, receive, send)


@dataclass(frozen=True)
class BodyLimited:
    """Refuses a body above a number of bytes: by its announced length, and while it is being received; and one that
    is packed, whose bytes would say nothing about its length.

    Attributes:
        app: what comes next.
        max_bytes: of a body.
        elsewhere: other limits, by path.
    """

    app: ASGIApp
    max_bytes: int
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
        received = 0

        async def counted() -> Message:
            nonlocal received
            if too_long:  # only now: who may not call, or calls too early, is told that first
                raise _too_large(most)
            if packed:
                raise UnsupportedMediaType("a body is taken as it is: send it without Content-Encoding")
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _too_large(most)
            return message

        await self.app(scope, counted, send)


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has more than the {most} bytes that are accepted")
