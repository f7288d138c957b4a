"""Which pages of other hosts may ask from a browser? Those that the settings name; others get a problem."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import Forbidden, problem

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
ASKED = ("Authorization", "X-API-Key", "X-Request-Id", "X-Request-Timeout-Ms", "X-Request-Class", "Last-Event-ID")
TOLD = (
    *("Model-Version", "Karyon-QC", "Karyon-QC-Codes", "Karyon-Notice"),
    *("X-Request-Id", "Retry-After", "Server-Timing", "Location"),
)
REFUSED = "this service does not take such requests from pages of that origin; KARYON_CORS_ORIGINS names those it does"


class Cors(CORSMiddleware):
    """Cross-origin requests; pure ASGI, so who hangs up is noticed. Keys travel in headers, never in cookies."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        """Let pages of these origins ask; `*` is any."""
        super().__init__(app, origins, METHODS, ASKED, expose_headers=TOLD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `ASGIApp`."""
        try:
            await super().__call__(scope, receive, send)
        except Forbidden as error:  # of a preflight: everything inside answers its own
            await problem(error, scope["state"]["record"])(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks whether it may ask.

        Raises:
            Forbidden: if it may not.
        """
        response = super().preflight_response(request_headers)
        if response.status_code >= 400:
            raise Forbidden(REFUSED)
        return response
