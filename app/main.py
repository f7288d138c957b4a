"""How are the parts put together? The only place that knows all of them; nothing is built at import."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import uvicorn
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Lifespan

from app import __version__
from app.admin import Admin
from app.api import batch, errors, exports, routes, slidejobs, slides, slidetiles, viewer, views
from app.api.analysts import Analysts
from app.api.cache import ResultCache
from app.api.cors import Cors
from app.api.explained import without_framework_errors
from app.api.middleware import UPLOADS, Accounted, Answered, Bodies, BodyLimited
from app.api.observing import Observer
from app.api.rehearsal import keep_for_good, rehearse, unreported
from app.api.services import Services
from app.api.slideservices import SlideServices
from app.nuclei.artifact import Artifact, active_version, default_store, load_artifact
from app.nuclei.engine import cpu_limit
from app.nuclei.errors import ArtifactError, Refusal
from app.server import LAST_CALL_S, Server, bound
from app.serving.admission import WaitingRoom
from app.serving.budget import Budget
from app.serving.calibration import Shelf
from app.serving.device import DeviceEngine, EngineOpener, Opener, open_on
from app.serving.enrolment import Enrolment
from app.serving.lifecycle import Lifecycle, State
from app.serving.liveness import HANG_S, TICK_S, Vitals, Watchdog
from app.serving.models import Models, Resident
from app.serving.postprocess import AVAILABLE, Postprocess, Processes, Threads
from app.serving.rules import Rules
from app.serving.runner import Runner
from app.serving.slots import Slots
from app.serving.store import require_model
from app.serving.work import WorkClass
from app.serving.workers import Workers
from app.settings import Settings, cache_folder, load_settings
from app.telemetry import Metrics, Report, log, log_as_json, log_request

EXIT_NO_PROGRESS = 70
ROUTERS = (
    routes.router,
    routes.v1,
    batch.router,
    slides.router,
    *slidejobs.ROUTERS,
    slidetiles.router,
    viewer.router,
    views.router,
    exports.router,
)
DESCRIPTION = (
    "Nuclei of H&E tissue, one image a request: outlines, classes and counts as GeoJSON. "
    "Research use only. Not for diagnostic procedures."
)


def create_app(
    settings: Settings | None = None,
    open_engine: EngineOpener | None = None,
    before_ready: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: read from the environment if None.
        open_engine: makes an engine of an artifact; ONNX Runtime as the settings say if None.
        before_ready: called when all is loaded and rehearsed.

    Raises:
        UnknownModel, ArtifactInvalid: the model that the settings name is not there, so it could never be ready.
    """
    settings = settings or load_settings()
    require_model(settings.model, settings.model_store)
    opener = open_engine or Opener(settings.precision, settings.gpu_memory, warn=tell_precision)
    services = assemble(settings, opener)
    return application(services, partial(running, services=services, before_ready=before_ready))


def application(services: Services, lifespan: Lifespan[FastAPI] | None = None, report: Report = log_request) -> FastAPI:
    """Routes and middleware over some parts; `report` writes the one line of each request."""
    app = FastAPI(
        title="Karyon",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.services = services
    described = app.openapi
    app.openapi = lambda: without_framework_errors(described())  # type: ignore[method-assign]
    for router in ROUTERS:
        app.include_router(router)
    for kind in (Refusal, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, errors.answer)
    limits = services.settings
    app.add_middleware(
        BodyLimited,
        max_bytes=limits.max_bytes,
        bodies=Bodies(limits.max_bytes_held),
        stall_s=limits.stall_s,
        elsewhere={UPLOADS: limits.slide_max_bytes},
    )
    app.add_middleware(Answered)
    if limits.cors_origins:
        app.add_middleware(Cors, origins=limits.cors_origins)
    app.add_middleware(Accounted, metrics=services.metrics, report=report)  # added last, so it sees everything
    return app


def assemble(settings: Settings, open_engine: EngineOpener) -> Services:
    """The parts of one application; no thread, file or model is touched yet."""
    threads, metrics = settings.threads or cpu_limit(), Metrics()
    runner = Runner(Observer(metrics))

    def opened(artifact: Artifact) -> DeviceEngine:
        return DeviceEngine(partial(open_on, settings.device, artifact, threads, open_engine), runner)

    enrolment = Enrolment(runner, Shelf(cache_folder(settings)), settings.calibration_s, threads)
    load = partial(load_artifact, store=settings.model_store)
    models = Models(load, opened, settings.models_in_memory, enrolment.enrol, partial(in_memory, metrics))
    slots = Slots(threads)
    postprocess = _postprocess(settings, threads, metrics)
    lifecycle, analysts = Lifecycle(), Analysts(settings, models, runner, slots, postprocess, metrics)
    # All in the room are served side by side: each has a thread, which waits for the device most of the time.
    room = WaitingRoom(settings.waiting_room, settings.waiting_room)
    return Services(
        settings=settings,
        metrics=metrics,
        lifecycle=lifecycle,
        models=models,
        room=room,
        budget=Budget(
            settings.max_queue_cost,
            settings.tenant_cost,
            runner,
            Rules(),
            rate=settings.tenant_rate,
            longest_wait_s=settings.longest_wait_s,
        ),
        runner=runner,
        vitals=Vitals(runner, settings.hang_s or HANG_S["cpu"]),
        workers={
            WorkClass.INTERACTIVE: Workers(settings.waiting_room, room.served),
            WorkClass.BULK: Workers(settings.bulk_at_once, lambda seconds: None),
        },
        slots=slots,
        postprocess=postprocess,
        decoders=CapacityLimiter(threads),
        slides=SlideServices(settings, analysts, lambda: lifecycle.state is State.READY),
        cache=ResultCache(settings.cache_bytes),
    )


def _postprocess(settings: Settings, threads: int, metrics: Metrics) -> Postprocess:
    count = threads if settings.postprocess_workers is None else settings.postprocess_workers
    if not (count and AVAILABLE):
        return Threads()

    def restarted(reason: str) -> None:
        metrics.worker_restarts.labels(reason).inc()
        if reason != "recycle":
            log("a worker that separates nuclei is replaced", logging.WARNING, reason=reason)

    return Processes(min(count, threads), restarted)


@asynccontextmanager
async def running(app: FastAPI, services: Services, before_ready: Callable[[], None]) -> AsyncIterator[None]:
    """From start to stop: the model comes up in the background, running work ends before the threads do."""

    def start() -> None:
        practise(services, bring_up(services))
        before_ready()

    services.runner.start()
    services.slides.start()
    services.lifecycle.start(start, partial(give_up, services), partial(announce, services))
    ticks = asyncio.create_task(ticking(services))
    try:
        yield
    finally:
        ticks.cancel()
        services.vitals.rest()
        services.lifecycle.drain()
        await asyncio.to_thread(services.slides.close)
        await asyncio.to_thread(services.close)


async def ticking(services: Services) -> None:
    """Show that the event loop turns, and how late."""
    while True:
        services.vitals.tick()
        began = time.monotonic()
        await asyncio.sleep(TICK_S)
        services.metrics.loop_lag.observe(max(0.0, time.monotonic() - began - TICK_S))


def bring_up(services: Services) -> Resident:
    """Load, prove and measure the default model, and take a tile through all that it needs."""
    reference = services.settings.model
    log("loading", model=reference)
    with ThreadPoolExecutor(1) as beside:
        workers = beside.submit(services.postprocess.start)
        resident = services.models.load(reference, lambda phase, s: services.metrics.load_seconds.labels(phase).set(s))
        workers.result()
    if services.settings.hang_s is None:
        services.vitals.least_hang_s = HANG_S.get(resident.engine.device, HANG_S["cpu"])
    services.warm(resident)
    return resident


def practise(services: Services, resident: Resident) -> None:
    """Send a tile through a second application over the same parts, which nobody else uses before readiness."""
    patches, _ = resident.artifact.golden
    asyncio.run(rehearse(application(services.rehearsing(), report=unreported), patches[0]))


def announce(services: Services) -> None:
    """Say which model serves, and under which licence."""
    resident = services.models.get(services.settings.model)
    artifact, provider = resident.artifact, resident.engine.provider
    log(
        "ready",
        model=artifact.name,
        version=artifact.version,
        sha256=artifact.sha256,
        licence=artifact.manifest.licence,
        training_data=artifact.manifest.training_data,
        provider=provider,
        precision=resident.engine.precision,
    )


def tell_precision(reason: str) -> None:
    """Say that a model does not calculate as it was asked to."""
    log("a model calculates in float32", logging.WARNING, reason=reason)


def in_memory(metrics: Metrics, resident: Resident, is_there: bool) -> None:
    """Count a model that is in memory, and no longer one that left."""
    artifact = resident.artifact
    labels = (artifact.name, artifact.version, artifact.sha256, resident.engine.provider, "active")
    if is_there:
        metrics.model_info.labels(*labels).set(1)
    else:
        metrics.model_info.remove(*labels)


def give_up(services: Services, error: Exception) -> None:
    """Say why the model does not serve; the process stays up, unready."""
    name, _, version = services.settings.model.partition("@")
    with suppress(ArtifactError):
        version = version or active_version(services.settings.model_store or default_store(), name)
    services.metrics.model_info.clear()  # it may have come into memory before it failed
    services.metrics.model_info.labels(name, version, "", "", State.FAILED).set(1)
    reason = f"{type(error).__name__}: {error}"
    log("the model does not serve", logging.ERROR, model=services.settings.model, reason=reason)


def end_process(reason: str) -> None:
    """Leave at once: whatever hangs would not let an orderly end come to its end."""
    log("the process ends: it gets nowhere", logging.CRITICAL, reason=reason)
    os._exit(EXIT_NO_PROGRESS)


def serve(settings: Settings, open_engine: EngineOpener | None = None) -> int:
    """Run the service until a signal; the process's exit status. See `create_app`.

    Raises:
        OSError: it cannot listen where it was told to.
    """
    log_as_json(settings.log_level)
    with bound(settings.host, settings.port) as sockets:
        return _serve(settings, create_app(settings, open_engine, keep_for_good), sockets)


def _serve(settings: Settings, app: FastAPI, sockets: list[socket.socket]) -> int:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.shutdown_s + LAST_CALL_S,
    )
    services: Services = app.state.services
    watchdog = Watchdog(services.vitals, end_process)
    watchdog.start()
    with answering_probes(services, settings.admin_port):
        Server(config, services.lifecycle, settings.drain_delay_s, services.runner.abort).run(sockets)
    watchdog.stop()
    if services.lifecycle.coming_up:  # in native code, which aborts the process when the interpreter ends around it
        sys.stderr.flush()
        os._exit(0)
    return 0


@contextmanager
def answering_probes(services: Services, port: int) -> Iterator[None]:
    """Answer probes on a port of their own meanwhile, if it is not 0."""
    if not port:
        yield
        return
    admin = Admin(services, port)
    admin.start()
    try:
        yield
    finally:
        admin.stop()
