"""How are many images answered in one request? All of them are admitted or none; each answers for itself, when it can.

The answer is a stream of JSON lines in the order in which images are done. It begins once everything is admitted, so
a refusal of the whole request still has a status of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import orjson
from anyio import move_on_after, to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api import explained, schemas
from app.api.analysis import GEOJSON
from app.api.errors import ClientGone, problem_body
from app.api.negotiation import choose
from app.api.routes import DOCUMENTED, check_parameters, ready_tenant, services_of
from app.api.services import Order, Prepared, Services
from app.api.uploads import FIELD, FORM, Part, check_part, media_type, parse_form, refuse_parameters
from app.api.urgency import urgency
from app.api.waiting import timed, while_connected
from app.nuclei.errors import InvalidParameter, PayloadTooLarge, Refusal, UnsupportedMediaType
from app.nuclei.types import Profile
from app.serving.budget import Claim, Reservation
from app.serving.work import WorkClass
from app.telemetry import Record, log

Emit = Callable[[bytes], Awaitable[None]]
router = APIRouter(prefix="/v1", dependencies=DOCUMENTED)


@router.post(
    "/segment/batch",
    summary="Find and classify the nuclei of many images",
    responses=schemas.BATCHED | schemas.problems(*explained.answers(*explained.SEGMENT_REFUSALS)),
    openapi_extra=schemas.BATCH_BODY,
    response_class=Response,
)
async def segment_batch(
    request: Request,
    tenant: Annotated[str, Depends(ready_tenant)],
    mpp: Annotated[float | None, Query(description="um per pixel of all images; default: each file's own")] = None,
    profile: Annotated[Profile | None, Query(description="accurate: the paper's three views; fast: one view")] = None,
    model: Annotated[str | None, Query(description="NAME or NAME@VERSION, see /v1/models", max_length=200)] = None,
) -> Response:
    """Send a form whose field `image` is repeated. Images are counted from 0 in their order there.

    All are admitted, or the whole request is refused. The answer is a line of JSON per image as it is done, with
    `index`, `status`, and `result` (as `/v1/segment` answers) or `problem`; the last line says `done`.
    """
    services, record = services_of(request), request.state.record
    check_parameters(request.query_params)
    choose(request.headers.get("accept"), (schemas.NDJSON,))
    content_type = request.headers.get("content-type")
    if media_type(content_type) != FORM:
        raise UnsupportedMediaType(f"Content-Type must be {FORM}")
    wish = urgency(request.headers, WorkClass.BULK)
    record.work_class = wish.work_class
    services.check_room(tenant, wish)
    with timed(record, "read"):
        body = await request.body()
    order = Order(mpp, profile, model or services.settings.model, GEOJSON, tenant, wish)
    return Lines(Tiles(services, order, record, body, content_type or ""))


@dataclass(frozen=True)
class Tiles:
    """The images of one request.

    Attributes:
        services: of the application.
        order: what is wanted of each.
        record: of the request.
        body, content_type: the form.
    """

    services: Services
    order: Order
    record: Record
    body: bytes
    content_type: str

    async def run(self, begin: Callable[[], Awaitable[None]], emit: Emit) -> None:
        """Admit all, then analyse them and emit a line for each as it is done, and the last one.

        Args:
            begin: called once everything is admitted.
            emit: takes a line.

        Raises:
            Refusal: of the whole request, before `begin`.
        """
        with self.services.room.admit():
            tiles = await self._prepare()
            cost = sum(tile.price.cost for tile in tiles if isinstance(tile, Prepared))
            urgent = self.order.urgency
            with self.services.budget.reserve(
                Claim(self.order.tenant, urgent.work_class, cost, urgent.deadline)
            ) as held:
                await begin()
                await self._answer(tiles, held, emit)

    async def _prepare(self) -> list[Prepared | Refusal]:
        if isinstance(self.order.mpp, float):  # what is wrong with the request is not every image's fault
            self.services.limits.mpp(self.order.mpp, "request")
        await self.services.resident(self.order.model)
        with timed(self.record, "decode"):
            parts = await to_thread.run_sync(images, self.body, self.content_type, limiter=self.services.decoders)
        most = self.services.settings.max_batch_tiles
        if len(parts) > most:
            raise PayloadTooLarge(f"the form has {len(parts)} images; at most {most} are accepted in one request")
        return [await self._prepare_one(part) for part in parts]

    async def _prepare_one(self, part: Part) -> Prepared | Refusal:
        try:
            check_part(part)
            return await self.services.prepare(b"".join(part.chunks), self.order, self.record)
        except Refusal as error:
            return error

    async def _answer(self, tiles: Sequence[Prepared | Refusal], held: Reservation, emit: Emit) -> None:
        jobs = [asyncio.create_task(self._tile(index, tile, held)) for index, tile in enumerate(tiles)]
        done = 0
        try:
            for job in asyncio.as_completed(jobs):
                ok, line = await job
                done += ok
                await emit(line)
        finally:
            for one in jobs:
                one.cancel()
            await asyncio.wait(jobs)
        await emit(orjson.dumps({"done": True, "ok": done, "failed": len(tiles) - done}) + b"\n")

    async def _tile(self, index: int, tile: Prepared | Refusal, held: Reservation) -> tuple[bool, bytes]:
        own = Record(self.record.request_id)
        try:
            if isinstance(tile, Refusal):
                raise tile
            written, _ = await self.services.analyse(tile, self.order, held.deadline, own)
        except Exception as error:
            if not isinstance(error, Refusal):
                log("unexpected error", logging.ERROR, error, request_id=own.request_id)
            failed = problem_body(error, own)
            line = orjson.dumps({"index": index, "status": failed["status"], "problem": failed})
        else:
            line = b'{"index":%d,"status":200,"result":%b}' % (index, written)
        finally:
            if isinstance(tile, Prepared):
                held.release(tile.price.cost)
        self._account(own)
        return not own.slug, line + b"\n"

    def _account(self, own: Record) -> None:
        self.services.metrics.observe_stages(own)
        if own.nuclei is not None:
            self.record.nuclei = (self.record.nuclei or 0) + own.nuclei


class Lines(Response):
    """Streams the lines of a request, and stops working for a caller who hung up."""

    media_type = schemas.NDJSON

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        super().__init__(headers={"Cache-Control": "no-store", "Vary": "Accept"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; see `Tiles.run`."""

        async def begin() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def emit(line: bytes) -> None:
            with move_on_after(self._tiles.services.settings.stall_s) as late:
                await send({"type": "http.response.body", "body": line, "more_body": True})
            if late.cancelled_caught:  # who does not read would hold place and body for ever
                raise ClientGone

        await while_connected(receive, self._tiles.run(begin, emit))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def images(body: bytes, content_type: str) -> list[Part]:
    """The images of a form, in their order.

    Raises:
        InvalidParameter: if it has none, or a parameter as a field.
        InvalidImage: if the form is broken.
    """
    parts = parse_form(body, content_type)
    refuse_parameters(parts)
    found = [part for part in parts if part.name == FIELD]
    if not found:
        raise InvalidParameter(FIELD, "the form needs at least one field called image")
    return found
