"""What do the routes need, and how is one request led through it without the event loop touching an array?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator, Mapping
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
from app.nuclei.artifact import prove
from app.nuclei.errors import InferenceFailed
from app.nuclei.types import Profile
from app.serving.admission import WaitingRoom
from app.serving.lifecycle import Lifecycle
from app.serving.models import Models, Resident
from app.serving.queued import QueuedEngine
from app.serving.runner import Runner
from app.serving.slots import Slots
from app.serving.tray import Ticket
from app.serving.work import WorkClass
from app.serving.workers import Workers
from app.settings import Settings
from app.telemetry import Metrics, Record, log

T = TypeVar("T")
LONG_S = 1800.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants of an image: its scale, the views, the model and the media type of the answer."""

    mpp: float | None
    profile: Profile | None
    model: str
    media_type: str
    tenant: str
    work_class: WorkClass = WorkClass.INTERACTIVE


@dataclass(frozen=True)
class Services:
    """The parts of one application, put together in `app.main`."""

    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    models: Models
    room: WaitingRoom
    runner: Runner
    workers: Mapping[WorkClass, Workers]
    slots: Slots
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
        resident = await self.resident(order.model)
        record.model = resident.artifact.name
        ticket = Ticket(order.tenant, order.work_class, self.runner.clock() + LONG_S)
        analysis = self._analysis(resident, ticket, record)
        queued = time.perf_counter()

        def work() -> tuple[bytes, Result]:
            record.observe("queue", time.perf_counter() - queued)
            result = analysis.run(image, mpp, order.profile or self.settings.profile, record.request_id)
            with timed(record, "encode"):
                return WRITERS[order.media_type](result), result

        try:
            written, result = await self.workers[order.work_class].run(order.tenant, work)
        except asyncio.CancelledError:
            self.runner.cancel(ticket)
            raise
        except InferenceFailed as error:
            log("inference failed", logging.ERROR, error, request_id=record.request_id, model=record.model)
            raise
        self._count(result, record)
        return written, result

    async def resident(self, reference: str) -> Resident:
        """The model that a request names, loaded in a thread if it is not in memory."""
        found = self.models.find(reference)
        return found if found is not None else await to_thread.run_sync(self.models.get, reference)

    def warm(self, resident: Resident) -> None:
        """Take one golden patch the whole way, so that no caller waits for what is compiled at its first use.

        Raises:
            ArtifactDrift: the queue and the device's thread do not give the golden maps.
        """
        record = Record("warm-up")
        ticket = Ticket("warm-up", WorkClass.INTERACTIVE, self.runner.clock() + LONG_S)
        prove(QueuedEngine(self.runner, resident, ticket), resident.artifact)
        patches, _ = resident.artifact.golden
        image = DecodedImage(patches[0], None, "")
        result = self._analysis(resident, ticket, record).run(image, None, self.settings.profile, record.request_id)
        for write in WRITERS.values():
            write(result)

    def close(self) -> None:
        """Let what runs end, refuse the rest, and wait for every thread."""
        self.runner.close()
        for workers in self.workers.values():
            workers.close()

    def _analysis(self, resident: Resident, ticket: Ticket, record: Record) -> Analysis:
        engine = QueuedEngine(self.runner, resident, ticket)
        separating = partial(self._separating, ticket.work_class, record)

        def observe(stage: str, seconds: float) -> None:
            if stage == "infer":  # its patches were queued meanwhile
                record.observe("queue", ticket.waited_s)
                seconds -= ticket.waited_s
            record.observe(stage, seconds)

        return Analysis(resident.artifact, engine, self.limits, observe, self.settings.revision, separating)

    @contextmanager
    def _separating(self, work_class: WorkClass, record: Record) -> Iterator[None]:
        began = time.perf_counter()
        with self.slots.slot(work_class):
            record.observe("slot_wait", time.perf_counter() - began)
            yield

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
