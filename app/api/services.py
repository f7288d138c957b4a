"""What do the routes need, and how is one request led through it without the event loop touching an array?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from anyio import CapacityLimiter, to_thread

from app.api.analysis import PATCHES_AT_ONCE, WRITERS, Analysis, Limits, Result, check_grid, result_headers, scale
from app.api.cache import Question, ResultCache, Written, question
from app.api.decoding import DecodedImage, announced, decode, header_is_near
from app.api.pricing import Price, price
from app.api.slideservices import SlideServices
from app.api.uploads import FORM, image_bytes, media_type
from app.api.urgency import Urgency
from app.api.waiting import timed
from app.nuclei.artifact import prove
from app.nuclei.errors import InferenceFailed
from app.nuclei.segmenter import Segmenter
from app.nuclei.types import Mpp, Profile
from app.serving.admission import WaitingRoom
from app.serving.budget import Budget, Claim
from app.serving.card import Card
from app.serving.lifecycle import Lifecycle, State
from app.serving.liveness import Vitals
from app.serving.memory import give_back
from app.serving.models import Models, Resident
from app.serving.postprocess import Postprocess, Turn
from app.serving.queued import QueuedEngine
from app.serving.runner import Runner
from app.serving.slots import Slots
from app.serving.tray import Ticket, next_request
from app.serving.work import WorkClass
from app.serving.workers import Workers
from app.settings import Settings
from app.telemetry import Metrics, Record, log

LONG_S = 1800.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants of an image: its scale, the views, the model, the media type of the answer, how soon.

    `number` tells requests apart: those of one caller take turns.
    """

    mpp: float | Mpp | None
    profile: Profile | None
    model: str
    media_type: str
    tenant: str
    urgency: Urgency
    number: int = field(default_factory=next_request)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image of which the header is read: its bytes and scale, the model that will look at it, and the price."""

    data: bytes
    mpp: Mpp | None
    profile: Profile
    resident: Resident
    price: Price


@dataclass(frozen=True)
class Services:
    """The parts of one application, put together in `app.main`."""

    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    models: Models
    room: WaitingRoom
    budget: Budget
    runner: Runner
    vitals: Vitals
    workers: Mapping[WorkClass, Workers]
    slots: Slots
    postprocess: Postprocess
    decoders: CapacityLimiter
    slides: SlideServices
    cache: ResultCache = field(default_factory=partial(ResultCache, 0))
    card: Card = field(default_factory=Card)

    @property
    def limits(self) -> Limits:
        """What images may be."""
        return Limits(self.settings.max_pixels, self.settings.min_mpp, self.settings.max_mpp)

    def check_room(self, tenant: str, urgency: Urgency) -> None:
        """Refuse before the body is read, if there is no room for any work of this caller.

        Raises:
            Overloaded, TenantQuota: as the waiting room and the budget.
        """
        self.room.check()
        self.budget.check(tenant, urgency.work_class, urgency.deadline)

    async def answer(self, body: bytes, content_type: str | None, order: Order, record: Record) -> Written:
        """Find room for an image, then decode, analyse and write it; all of it in threads. Or find that it was done.

        Raises:
            Refusal: whatever is wrong with image, parameters, model or load.
        """
        with timed(record, "decode"):
            data = await self.image(body, content_type)
        prepared = await self.prepare(data, order, record)
        if not self.cache or order.urgency.work_class is WorkClass.BULK:
            return await self._admitted(prepared, order, record)
        asked = await to_thread.run_sync(self._question, prepared, order, limiter=self.decoders)
        found = self.cache.get(asked, record.request_id)
        self.metrics.cache_requests.labels("miss" if found is None else "hit").inc()
        if found is None:
            found = await self._admitted(prepared, order, record)
            self.cache.put(asked, found)
        record.bucket, record.nuclei = found.bucket, found.nuclei
        return found

    async def image(self, body: bytes, content_type: str | None) -> bytes:
        """The image in a body; a form is taken apart in a thread.

        Raises:
            Refusal: as `image_bytes`.
        """
        if media_type(content_type) != FORM:
            return body
        return await to_thread.run_sync(image_bytes, body, content_type, limiter=self.decoders)

    async def _admitted(self, prepared: Prepared, order: Order, record: Record) -> Written:
        claim = Claim(order.tenant, order.urgency.work_class, prepared.price.cost, order.urgency.deadline)
        with self.budget.reserve(claim) as held:
            body, result = await self.analyse(prepared, order, held.deadline, record)
        nuclei = len(result.segmentation.nuclei)
        return Written(body, result_headers(result), record.request_id, result.bucket, nuclei)

    def _question(self, prepared: Prepared, order: Order) -> Question:
        artifact = prepared.resident.artifact
        how = (prepared.mpp, prepared.profile, order.media_type, artifact, self.settings.revision)
        return question(order.tenant, prepared.data, *how)

    async def prepare(self, data: bytes, order: Order, record: Record) -> Prepared:
        """Read an image's header and find out what it costs; no pixel is decoded.

        Raises:
            Refusal: whatever is wrong with header, parameters or model.
        """
        with timed(record, "decode"):
            # A batch has many: not even their near headers are the event loop's.
            if order.urgency.work_class is WorkClass.INTERACTIVE and header_is_near(data):
                image = announced(data, self.limits.max_pixels)
            else:
                image = await to_thread.run_sync(announced, data, self.limits.max_pixels, limiter=self.decoders)
        mpp = scale(order.mpp, image, self.limits)
        resident = await self.resident(order.model)
        record.model = resident.artifact.name
        check_grid(resident.artifact.manifest, image.size.height, image.size.width, mpp, self.limits)
        profile = (
            order.profile or self.settings.profile or Segmenter(resident.artifact, resident.engine).default_profile
        )
        cost = price(resident.artifact, image.size.height, image.size.width, mpp, profile)
        return Prepared(data, mpp, profile, resident, cost)

    async def analyse(self, prepared: Prepared, order: Order, deadline: float, record: Record) -> tuple[bytes, Result]:
        """Wait for a turn, then decode an image that was admitted, find its nuclei and write the answer.

        Args:
            prepared: the image.
            order: what is wanted of it.
            deadline: on the runner's clock.
            record: of the request, or of this image of it.

        Raises:
            Refusal: it cannot be decoded, or was not analysed in time or at all.
        """
        work_class = order.urgency.work_class
        ticket = Ticket(order.tenant, work_class, deadline, order.number)
        analysis = self._analysis(prepared.resident, ticket, record)
        queued = time.perf_counter()

        def work() -> tuple[bytes, Result]:
            record.observe("queue", time.perf_counter() - queued)
            try:
                with self.slots.slot(work_class), timed(record, "decode"):
                    image = decode(prepared.data, self.limits.max_pixels)
                result = analysis.run(image, prepared.mpp, prepared.profile, record.request_id)
                with self.slots.slot(work_class), timed(record, "encode"):
                    return WRITERS[order.media_type](result), result
            finally:
                if prepared.price.patches > PATCHES_AT_ONCE:
                    give_back()

        try:
            written, result = await self.workers[work_class].run(order.tenant, work, order.number)
        except asyncio.CancelledError:
            self.runner.cancel(ticket)
            if ticket.answered:
                self.metrics.cancelled.labels("postprocess").inc(prepared.price.patches)
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

    def rehearsing(self) -> Services:
        """The same parts, open to everybody and counting for nobody: for requests of our own before readiness."""
        settings = self.settings.model_copy(update={"api_keys": (), "allow_anonymous": True})
        return replace(
            self, settings=settings, metrics=Metrics(), lifecycle=Lifecycle(State.READY), cache=ResultCache(0)
        )

    def close(self) -> None:
        """Let what runs end, refuse the rest, and wait for every thread."""
        self.runner.close()
        for workers in self.workers.values():
            workers.close()
        self.postprocess.close()

    def _analysis(self, resident: Resident, ticket: Ticket, record: Record) -> Analysis:
        engine = QueuedEngine(self.runner, resident, ticket)
        turn = Turn(self.postprocess, self.slots, ticket.work_class)

        def observe(stage: str, seconds: float) -> None:
            if stage == "infer":  # its patches were queued meanwhile
                record.observe("queue", ticket.waited_s)
                seconds -= ticket.waited_s
            record.observe(stage, seconds)

        return Analysis(resident.artifact, engine, self.limits, turn.observing(observe), self.settings.revision, turn)

    def _count(self, result: Result, record: Record) -> None:
        record.bucket, record.nuclei = result.bucket, len(result.segmentation.nuclei)
        self.metrics.tile_instances.observe(record.nuclei)
        found = result.segmentation
        self.metrics.count_result(found.counts, found.qc.measures, record.model)
