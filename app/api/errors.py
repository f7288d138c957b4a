"""Which HTTP answer does each refusal get? Below `app/api` nobody knows HTTP; this table is the only bridge.

Every error, the framework's own included, is `application/problem+json` (RFC 9457). Its text is written for the
caller and holds no path, file name or trace.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from app.nuclei import errors as domain
from app.telemetry import Record

PROBLEM = "application/problem+json"
SECONDS_UNTIL_READY = 5
SECONDS_UNTIL_REPLACED = 10


class Unauthenticated(domain.Refusal):
    """The request carries no API key, or one that is not known."""


class Forbidden(domain.Refusal):
    """The caller is known, but may not do this."""


class RequestTimeout(domain.Refusal):
    """The caller stopped sending the body, and did not hang up either."""


class ClientGone(Exception):
    """The caller hung up; nobody reads an answer."""


class Answer(NamedTuple):
    """Status, last part of the problem type's URN, and title of one kind of refusal."""

    status: int
    slug: str
    title: str


ANSWER: dict[type[domain.Refusal], Answer] = {
    Unauthenticated: Answer(401, "unauthenticated", "No valid API key"),
    Forbidden: Answer(403, "forbidden", "Not allowed"),
    domain.NotFound: Answer(404, "not-found", "Nothing at this address"),
    domain.UnknownModel: Answer(404, "unknown-model", "Unknown model"),
    domain.NotAcceptable: Answer(406, "not-acceptable", "No acceptable media type"),
    RequestTimeout: Answer(408, "request-timeout", "The body did not come"),
    domain.Conflict: Answer(409, "conflict", "Contradicts what is kept"),
    domain.PayloadTooLarge: Answer(413, "payload-too-large", "Too large"),
    domain.UnsupportedMediaType: Answer(415, "unsupported-media-type", "Not a readable PNG, JPEG or TIFF"),
    domain.InvalidImage: Answer(422, "invalid-image", "Broken image"),
    domain.InvalidParameter: Answer(422, "invalid-parameter", "Invalid parameter"),
    domain.MppRequired: Answer(422, "mpp-required", "The slide's scale is not known"),
    domain.NotDicom: Answer(422, "not-dicom", "Not a DICOM slide"),
    domain.ViewportTooDense: Answer(422, "viewport-too-dense", "Too many nuclei in view"),
    domain.InferenceFailed: Answer(500, "inference-failed", "Analysis failed"),
    domain.MissingExtra: Answer(501, "missing-extra", "Optional part not installed"),
    domain.Overloaded: Answer(503, "overloaded", "All places are taken"),
    domain.NotReady: Answer(503, "not-ready", "Not ready"),
    domain.Draining: Answer(503, "draining", "Stopping"),
    domain.TenantQuota: Answer(429, "tenant-quota", "Too much work outstanding"),
    domain.DeadlineUnattainable: Answer(503, "deadline-unattainable", "Not before the deadline"),
    domain.DeviceFault: Answer(503, "device-fault", "Device fault"),
    domain.DeadlineExceeded: Answer(504, "deadline-exceeded", "Too late"),
    domain.StorageFull: Answer(507, "storage-full", "No room in the store"),
}
BY_STATUS: dict[int, Answer] = {
    404: ANSWER[domain.NotFound],
    405: Answer(405, "method-not-allowed", "Method not allowed"),
    413: ANSWER[domain.PayloadTooLarge],
    422: ANSWER[domain.InvalidParameter],
}
UNEXPECTED = Answer(500, "internal-error", "Unexpected error")
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
SPOKEN = {
    404: "there is nothing at this address; GET /docs lists what there is",
    405: "this address does not take that method; the header Allow names those it takes",
}


def answer_to(error: Exception) -> Answer:
    """The row for an error: of its class, else of the nearest base; `UNEXPECTED` for what is no refusal."""
    if isinstance(error, HTTPException):
        return BY_STATUS.get(error.status_code, Answer(error.status_code, "http-error", "Request refused"))
    if isinstance(error, RequestValidationError):
        return ANSWER[domain.InvalidParameter]
    return next((ANSWER[kind] for kind in type(error).__mro__ if kind in ANSWER), UNEXPECTED)


def problem(error: Exception, record: Record) -> Response:
    """The response for an error; see `problem_body`."""
    body = problem_body(error, record)
    return Response(orjson.dumps(body), body["status"], _headers(error, _seconds_to_wait(error)), PROBLEM)


def problem_body(error: Exception, record: Record) -> dict[str, Any]:
    """What is said of an error; notes the slug in the request's record.

    Args:
        error: a refusal, an error of the framework, or anything else (answered 500 without details).
        record: of the request; its id becomes `instance`.
    """
    answer = answer_to(error)
    record.slug = answer.slug
    wait = _seconds_to_wait(error)
    body: dict[str, Any] = {
        "type": f"urn:karyon:problem:{answer.slug}",
        "title": answer.title,
        "status": answer.status,
        "detail": _detail(error, answer),
        "instance": record.request_id,
    }
    body |= {"retry_after_seconds": wait} if wait is not None else {}
    body |= {"limit": error.limit, "count": error.count} if isinstance(error, domain.ViewportTooDense) else {}
    body |= {"errors": faults} if (faults := _faults(error)) else {}
    return body


def _headers(error: Exception, wait: int | None) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="karyon"'
    return headers if wait is None else headers | {"Retry-After": str(wait)}


def _seconds_to_wait(error: Exception) -> int | None:
    if isinstance(error, domain.Overloaded | domain.TenantQuota | domain.DeadlineUnattainable):
        return error.retry_after_s
    if isinstance(error, domain.DeviceFault):
        return SECONDS_UNTIL_REPLACED
    return SECONDS_UNTIL_READY if isinstance(error, domain.NotReady | domain.Draining) else None


def _detail(error: Exception, answer: Answer) -> str:
    if isinstance(error, domain.Refusal):
        return str(error)
    if isinstance(error, RequestValidationError):
        return "; ".join(f"{fault['parameter']}: {fault['detail']}" for fault in _faults(error))
    return SPOKEN.get(answer.status, "the service could not answer this request; its log knows more under this id")


def _faults(error: Exception) -> list[dict[str, str]]:
    if isinstance(error, domain.InvalidParameter):
        return [{"parameter": error.name, "detail": str(error)}]
    if isinstance(error, RequestValidationError):
        return [{"parameter": str(e["loc"][-1]), "detail": str(e["msg"])} for e in error.errors()]
    return []


async def answer(request: Request, error: Exception) -> Response:
    """Exception handler of the application."""
    response = problem(error, request.state.record)
    if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """What the address takes, by all routes: the framework names those of the first."""
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    return [m for m, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in request.app.routes)]
