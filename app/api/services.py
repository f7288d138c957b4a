"""What do the routes need, and how is one request led through it without the event loop touching an array?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.types import Receive

from app.api.analysis import WRITERS, Analysis, Limits, Result, scale
from app.api.decoding import DecodedImage, decode
from app.api.errors import ClientGone
from app.api.uploads import image_bytes
from app.nuclei.errors import InferenceFailed
from app.nuclei.types import Profile
from app.serving.admission import WaitingRoom
from app.serving.lifecycle import Lifecycle
from app.serving.models import Models, Resident
from app.serving.runner import Runner
from app.settings import Settings
from app.telemetry import Metrics, Record, log

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants of an image: its scale, the views, the model and the media type of the answer."""

    mpp: float | None
    profile: Profile | None
    model: str
    media_type: str
    tenant: str


@dataclass(frozen=True)
class Services:
    """The parts of one application, put together in `app.main`."""

    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    models: Models
    room: WaitingRoom
    runner: Runner
    decoders: CapacityLimiter

    @property
    def limits(self) -> Limits:
        """What images may be."""
        return Limits(self.settings.max_pixels, self.settings.min_mpp, self.settings.max_mpp)

    async def answer(self, body: bytes, content_type: str | None, order: Order, record: Record) -> tuple[bytes, Result]:
        """Decode, wait for a turn, analyse and write, all of it in threads.

        Raises:
            Refusal: whatever is wrong with image, parameters, model or load.
        """
        with timed(record, "decode"):
            unpack = partial(_unpack, body, content_type, self.limits.max_pixels)
            image = await to_thread.run_sync(unpack, limiter=self.decoders)
        mpp = scale(order.mpp, image, self.limits)
        queued = time.perf_counter()

        def work() -> tuple[bytes, Result]:
            record.observe("queue", time.perf_counter() - queued)
            resident = self.models.get(order.model)
            record.model = resident.artifact.name
            analysis = self._analysis(resident, record)
            result = analysis.run(image, mpp, order.profile or self.settings.profile, record.request_id)
            with timed(record, "encode"):
                return WRITERS[order.media_type](result), result

        try:
            written, result = await self.runner.run(order.tenant, work)
        except InferenceFailed as error:
            log("inference failed", logging.ERROR, error, request_id=record.request_id, model=record.model)
            raise
        self._count(result, record)
        return written, result

    def warm(self, resident: Resident) -> None:
        """Take one golden patch the whole way, so that no caller waits for what is compiled at its first use."""
        record = Record("warm-up")
        patches, _ = resident.artifact.golden
        image = DecodedImage(patches[0], None, "")
        result = self._analysis(resident, record).run(image, None, self.settings.profile, record.request_id)
        for write in WRITERS.values():
            write(result)

    def _analysis(self, resident: Resident, record: Record) -> Analysis:
        return Analysis(resident.artifact, resident.engine, self.limits, record.observe, self.settings.revision)

    def _count(self, result: Result, record: Record) -> None:
        record.bucket, record.nuclei = result.bucket, len(result.segmentation.nuclei)
        self.metrics.tile_instances.observe(record.nuclei)
        for name, count in result.segmentation.counts.items():
            self.metrics.instances.labels(name, record.model).inc(count)


def _unpack(body: bytes, content_type: str | None, max_pixels: int) -> DecodedImage:
    return decode(image_bytes(body, content_type), max_pixels)


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
