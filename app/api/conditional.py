"""Has what a caller holds already changed? RFC 9110 sections 8.8.3 and 13.1.2."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

ASK_AGAIN = "private, no-cache"
"""Results change while a job runs: a copy may be kept, but is asked about before it is shown."""
FOR_A_DAY = "private, max-age=86400"
"""The pixels of a slide never change under its id."""


def etag(*parts: object) -> str:
    """A strong entity tag: equal parts give equal bytes."""
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def holds(request: Request, tag: str) -> bool:
    """Whether `If-None-Match` says that the caller has this already."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in given.split(","))


def conditional(request: Request, tag: str, cache: str, media_type: str, make: Callable[[], bytes]) -> Response:
    """304 if the caller has it, else what `make` gives; both carry the tag."""
    headers = {"ETag": tag, "Cache-Control": cache}
    if holds(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(make(), headers=headers, media_type=media_type)
