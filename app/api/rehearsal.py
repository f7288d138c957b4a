"""How does the first caller find a service that has done it all before?

Code that runs for the first time is slow: pages are touched, routes are put together, the interpreter specialises what
it runs, threads begin. So a tile goes the whole way of a request a few times before readiness, in every format and to
every kind of answer.
"""

from __future__ import annotations

import gc
import io
import logging
from collections.abc import Mapping
from typing import Any

import httpx
from PIL import Image
from starlette.types import ASGIApp

from app.api.analysis import CSV, GEOJSON, HOVERNET, PNG, SUMMARY
from app.nuclei.types import UInt8
from app.telemetry import Record, log

PLAYS = (("tiff", HOVERNET), ("png", CSV), ("tiff", PNG), ("jpeg", SUMMARY), *[("jpeg", GEOJSON), ("png", GEOJSON)] * 2)
TIMEOUT_S = 60.0


async def rehearse(app: ASGIApp, tile: UInt8) -> None:
    """Send an application what callers will send; an answer other than 200 is logged, and practice nevertheless.

    Args:
        app: the application, open to everybody; see `Services.rehearsing`.
        tile: (H, W, 3) of tissue.
    """
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://rehearsal", timeout=TIMEOUT_S) as caller:
        for kind, media_type in PLAYS:
            headers = {"Content-Type": f"image/{kind}", "Accept": media_type}
            answer = await caller.post("/v1/segment", content=_file(tile, kind), headers=headers)
            if not answer.is_success:
                reason = answer.json().get("detail")
                log("a rehearsal was refused", logging.WARNING, status=answer.status_code, kind=kind, reason=reason)


def unreported(record: Record, facts: Mapping[str, Any]) -> None:
    """Rehearsals are no requests: their lines are not written."""


def keep_for_good() -> None:
    """Let the garbage collector leave alone what the service consists of: looking through it stops it for 0.1 s."""
    gc.collect()
    gc.freeze()


def _file(tile: UInt8, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, kind)
    return file.getvalue()
