"""What do the headers of a request, the codes of a technical check and the refusals of a route mean? For /docs."""

from __future__ import annotations

from typing import Any

from app.api.errors import ANSWER, Answer, Forbidden, RequestTimeout, Unauthenticated
from app.api.urgency import CLASS, TIMEOUT
from app.nuclei import errors as domain

Json = dict[str, Any]

QC_CODES = {
    "no_tissue": "hardly any tissue in the image; explains why no nuclei were found",
    "no_nuclei_in_tissue": "tissue, but no nucleus was found in it",
    "out_of_focus": "the image is blurred",
    "too_bright": "the tissue is very light",
    "too_dark": "the tissue is very dark, or much of the image is black",
    "saturated": "many pixels are at the end of a channel's range",
    "pen_mark": "colours of a marker pen",
    "stain_shift": "the colours are not those of the H&E stains that the model has seen",
    "mpp_implausible": "the nuclei are larger or smaller than those that the model has seen: the scale may be wrong",
    "mpp_assumed": "nobody said how large a pixel is: the model's own scale was taken, and all um rest on it",
    "mpp_conflict": "request and file state different scales: the request's was taken",
    "ensemble_disagreement": "members and views of the model disagree on what is nucleus more than usual",
}

WHO = (Unauthenticated, Forbidden)
SEGMENT_REFUSALS = (
    *WHO,
    domain.UnknownModel,
    domain.NotAcceptable,
    RequestTimeout,
    domain.PayloadTooLarge,
    domain.UnsupportedMediaType,
    domain.InvalidImage,
    domain.InvalidParameter,
    domain.TenantQuota,
    domain.InferenceFailed,
    domain.Overloaded,
    domain.DeadlineUnattainable,
    domain.NotReady,
    domain.Draining,
    domain.DeviceFault,
    domain.DeadlineExceeded,
)
WAITING = frozenset({429, 503})  # statuses that may say when to come back


def answers(*refusals: type[domain.Refusal]) -> tuple[Answer, ...]:
    """Their rows of the answer table."""
    return tuple(ANSWER[kind] for kind in refusals)


def _header(name: str, schema: Json, meaning: str) -> Json:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": meaning}


def asked_headers(classes: list[str]) -> list[Json]:
    """The headers that requests for an analysis may carry; `classes` that a caller can choose from."""
    return [
        _header(TIMEOUT, {"type": "integer", "minimum": 1}, "the answer is worth nothing later than this; a request "
                "that cannot be served in time is refused at once. Default: the larger of 10 s and three times the "
                "estimate, for bulk 30 min"),
        _header(CLASS, {"type": "string", "enum": classes}, "bulk lets those who wait at a screen go first"),
        _header("X-Request-Id", {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}, "names this request in the "
                "answer and in the log; made up if absent"),
    ]  # fmt: skip


RETRY_AFTER: Json = {
    "Retry-After": {
        "description": "seconds after which it is worth asking again, as measured; absent where waiting does not help",
        "schema": {"type": "integer", "minimum": 1, "maximum": 120},
    }
}


def without_framework_errors(document: Json) -> Json:
    """An OpenAPI document without the answers that the framework adds to it: errors here are problems, all of them."""
    for methods in document["paths"].values():
        for operation in methods.values():
            responses = operation["responses"]
            if "application/json" in responses.get("422", {}).get("content", {}):
                del responses["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
    return document
