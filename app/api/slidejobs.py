"""How is a whole slide analysed, and how does a caller watch it? Jobs of slides, and their events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api import slideschemas as schemas
from app.api.routes import DOCUMENTED, no_parameters, ready_tenant, services_of
from app.api.services import Services
from app.api.slides import OwnSlide, Tenant, answer, moment, read_json, said_mpp, slides_of
from app.api.slideservices import SlideServices
from app.api.waiting import while_connected
from app.nuclei.errors import NotFound
from app.nuclei.types import Mpp
from app.serving.lifecycle import State
from app.serving.models import Resident
from app.slides.jobbook import OPEN, Job, NewJob
from app.slides.places import Box
from app.slides.records import Slide
from app.slides.regions import required
from app.slides.store import check_model
from app.slides.windows import check_region

LOOK_S = 0.5  # between two looks at a job that is watched
HEARTBEAT_S = 15.0
EVENTS = "text/event-stream"
of_slides = APIRouter(prefix="/v1/slides", dependencies=DOCUMENTED, tags=["slides"])
router = APIRouter(prefix="/v1/jobs", dependencies=[*DOCUMENTED, Depends(no_parameters)], tags=["slides"])
ROUTERS = (of_slides, router)


def own_job(request: Request, job_id: str, tenant: Tenant) -> Job:
    """The job of an address, if its slide is the caller's; else NotFound."""
    slides = slides_of(request)
    job = slides.book.get(job_id)
    try:
        slides.slide(job.slide_id, tenant)
    except NotFound:
        raise NotFound("there is no job of this id") from None
    return job


OwnJob = Annotated[Job, Depends(own_job)]


@of_slides.post(
    "/{slide_id}/jobs",
    status_code=202,
    summary="Analyse a slide, or a region of it",
    dependencies=[Depends(no_parameters), Depends(ready_tenant)],
    responses=schemas.ACCEPTED,
    openapi_extra=schemas.JOB_BODY,
    response_class=Response,
)
async def start(request: Request, slide: OwnSlide) -> Response:
    """The job runs in the background, window by window; what is done already is not done again.

    A slide whose file does not say how large a pixel is needs `mpp`. Results of one model only are kept of a slide.
    """
    services, order = services_of(request), schemas.NewJob.read(await read_json(request))
    value = said_mpp(request, order.mpp)
    resident = await services.resident(order.model or services.settings.model)
    job = await to_thread.run_sync(_add, services, slide, resident, order, value)
    for worker in await to_thread.run_sync(lambda: services.slides.workers):
        worker.wake()
    response = answer(entry(job, services.slides), 202)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return response


@router.head("/{job_id}", include_in_schema=False)
@router.get("/{job_id}", summary="How far a job is", responses=schemas.JOB_FOUND, response_class=Response)
def show(request: Request, job: OwnJob) -> Response:
    """State, windows done and in all, windows per second, seconds left, and the problem if it failed."""
    return answer(entry(job, slides_of(request)))


@router.delete("/{job_id}", summary="Cancel a job", responses=schemas.JOB_FOUND, response_class=Response)
def cancel(request: Request, job: OwnJob) -> Response:
    """What is done stays; a job that has ended stays as it is."""
    slides = slides_of(request)
    cancelled = slides.book.cancel(job.id)
    for worker in slides.workers:
        worker.cancel(job.id)
    return answer(entry(cancelled, slides))


@router.get("/{job_id}/events", summary="Watch a job", responses=schemas.EVENTS_SENT, response_class=Response)
def events(request: Request, job: OwnJob) -> Response:
    """Server-sent events: the job as `GET /v1/jobs/{id}` writes it, now and whenever it changes, until it has ended."""
    if job.state not in OPEN and request.headers.get("last-event-id") == version(job):
        return Response(status_code=204)  # the caller knows; a browser comes back until it is told so
    return Events(job, services_of(request))


def _add(services: Services, slide: Slide, resident: Resident, order: schemas.NewJob, value: float | None) -> Job:
    slides, artifact = services.slides, resident.artifact
    if order.region is not None:
        check_region(Box(*order.region), slide.width, slide.height)
    if value is None and slide.mpp is None:
        required(slide.mpp)
    with slides.library.open(slide):  # a file that is gone or cannot be read is better refused now than found later
        pass
    if value is not None:
        slide = slides.library.set_mpp(slide, value)
    mpp = _usable(services, required(slide.mpp))
    profile = order.profile or slides.analysts.profile(resident)
    check_model(slide, slides.analysts.analyst(resident, profile, "", "").key(mpp))
    region = Box(*order.region) if order.region else Box(0, 0, slide.width, slide.height)
    names = artifact.name, artifact.version, artifact.sha256
    return slides.book.add(NewJob(slide.id, region, profile, *names, mpp))


def _usable(services: Services, mpp: Mpp) -> Mpp:
    for value in (mpp.x, mpp.y):
        services.limits.mpp(value, mpp.source)
    return mpp


def entry(job: Job, slides: SlideServices) -> dict[str, Any]:
    """A job as it is written."""
    rate = _rate(job, slides) if job.state == "running" else None
    return {
        "id": job.id,
        "slide": job.slide_id,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "rate": rate and round(rate, 4),
        "seconds_left": round((job.total - job.done) / rate, 1) if rate else None,
        "problem": job.problem,
        "region": list(job.region),
        "profile": job.profile,
        "model": {"name": job.model_name, "version": job.model_version, "sha256": job.model_sha256},
        "created": moment(job.created_ms),
        "started": job.started_ms and moment(job.started_ms),
        "finished": job.finished_ms and moment(job.finished_ms),
    }


def _rate(job: Job, slides: SlideServices) -> float | None:
    """Windows per second: as its worker here measures it, else from what the store says of a worker elsewhere."""
    for worker in slides.workers:
        if (measured := worker.rate(job.id)) is not None:
            return measured
    seconds = (job.updated_ms - (job.started_ms or job.updated_ms)) / 1000
    return job.done / seconds if seconds > 0 else None


def version(job: Job) -> str:
    """Changes with the job."""
    return f"{job.state}-{job.done}-{job.total}"


class Events(Response):
    """Streams a job's states until it has ended, its caller hangs up, or the service stops."""

    media_type = EVENTS

    def __init__(self, job: Job, services: Services) -> None:
        self._job, self._services = job, services
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""

        async def emit(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await while_connected(receive, self._watch(emit))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self, emit: Callable[[str], Awaitable[None]]) -> None:
        job, told, quiet_s = self._job, "", 0.0
        await emit("retry: 2000\n\n")
        while True:
            if version(job) != told:
                told, quiet_s = version(job), 0.0
                written = await to_thread.run_sync(entry, job, self._services.slides)
                await emit(f"id: {told}\ndata: {orjson.dumps(written).decode()}\n\n")
            elif quiet_s >= HEARTBEAT_S:
                quiet_s = 0.0
                await emit(": still here\n\n")
            if job.state not in OPEN or self._services.lifecycle.state is State.DRAINING:
                return
            await asyncio.sleep(LOOK_S)
            quiet_s += LOOK_S
            try:
                job = await to_thread.run_sync(self._services.slides.book.get, job.id)
            except NotFound:  # deleted with its slide
                return
