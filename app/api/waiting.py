"""How long did a stage take, and is the caller still there?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.types import Receive

from app.api.errors import ClientGone
from app.telemetry import Record

T = TypeVar("T")


@contextmanager
def timed(record: Record, stage: str) -> Iterator[None]:
    """Add the time spent inside to a stage of the record."""
    began = time.perf_counter()
    try:
        yield
    finally:
        record.observe(stage, time.perf_counter() - began)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do work for a caller who may hang up; if so it is cancelled.

    Args:
        receive: of the request, whose body has been read to its end.
        work: what the caller waits for.

    Raises:
        ClientGone: if the caller hung up first.
    """
    job, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientGone
        return job.result()
    finally:
        for task in (job, gone):
            task.cancel()
        await asyncio.wait({job, gone})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
