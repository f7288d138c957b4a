"""How do many machines serve as one? Each replica of a Ray Serve deployment is one whole service.

    serve run app.ray_app:service model=karyon-lite@4 cpus=2 gpus=0     # by hand
    serve deploy deploy/ray/serve.yaml                                  # on a cluster

A replica is built where it runs, because a live application cannot be sent there. Settings are those of the
environment (`KARYON_`), but for the model, the device and the threads, which `Arguments` say, and for addresses and the
time to drain, which are Ray's. A cluster counts as a public address: without API keys it needs
`KARYON_ALLOW_ANONYMOUS=true`. Queue, quotas and metrics belong to a replica; slides need a store that all of them reach
(`KARYON_STORE_URL`, `KARYON_SLIDE_FOLDER`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from app.api import health
from app.api.rehearsal import keep_for_good
from app.api.services import Services
from app.main import create_app, end_process
from app.serving.liveness import Watchdog
from app.serving.store import require_model
from app.settings import Settings, load_settings
from app.telemetry import log_as_json

NO_LIMIT = 100_000
"""Requests inside a replica: the service counts what it holds itself, and refuses in its own words."""
FUSE = 256
"""Requests that a proxy holds back while replicas are away."""
SURGE_PERCENT = 20
"""Replicas more, at least one, while others are replaced: an old one goes only once a new one is ready."""
DRAIN_S = 60
"""Requests inside a replica that is to go have as long; Ray bounds it, whatever KARYON_SHUTDOWN_S says."""
ANYBODY = "0.0.0.0"


class Arguments(BaseModel):
    """What a Serve config may say under `args`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("karyon-lite", description="NAME or NAME@VERSION; another one replaces the replicas in turn")
    gpus: float = Field(1, ge=0, description="of each replica")
    cpus: int = Field(1, ge=1, description="threads of each replica")
    replicas: int = Field(1, ge=1, description="where the Serve config does not scale them")


class Replica:
    """One whole service inside a Ray actor."""

    def __init__(self, model: str, gpus: float, cpus: int) -> None:
        """Nothing is loaded yet.

        Args:
            model: that serves when a request names none.
            gpus: of this replica; with none it runs on the CPU.
            cpus: threads.

        Raises:
            ValueError, UnknownModel: a setting or the model is wrong; Ray then keeps what served before.
        """
        settings = settings_of(model=model, device="cuda" if gpus else "cpu", threads=cpus)
        log_as_json(settings.log_level)
        self._app = create_app(settings, before_ready=keep_for_good)
        self._services: Services = self._app.state.services
        self._app.router.lifespan_context = until_ready(self._app.router.lifespan_context)
        self._app.add_middleware(Unnamed)
        # A replica whose loop is stuck cannot say so; its end is what Ray notices first.
        Watchdog(self._services.vitals, end_process).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application; Ray asks for it once."""
        return self._app

    async def check_health(self) -> None:
        """Ray asks every few seconds and replaces a replica that says no.

        Raises:
            DeviceFault: it gets nowhere.
        """
        health.live(self._services)


def settings_of(**given: Any) -> Settings:
    """The environment's settings under those `given`, for an address that anybody may reach.

    Raises:
        ValueError: naming what is wrong. An actor that exits instead would be started again and again without a word.
    """
    try:
        return load_settings(host=ANYBODY, admin_port=0, **given)
    except SystemExit as error:
        raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Unnamed:
    """Leaves the header with a request's id to Ray, which adds it: two would be read as one long id.

    It is the same one where the caller named none or a plain one; Ray sends back any other as it came, while the body
    and the log have an id of the service's own.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def unnamed(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self.app(scope, receive, unnamed)


def until_ready(lifespan: Lifespan[FastAPI]) -> Lifespan[FastAPI]:
    """A start that is over when the model has proved itself, and that fails if it does not.

    Ray sends requests to whatever has started, and stops old replicas for it.
    """

    @asynccontextmanager
    async def starting(app: FastAPI) -> AsyncIterator[None]:
        services: Services = app.state.services
        async with lifespan(app):
            await asyncio.to_thread(services.lifecycle.wait_started)
            health.ready(services)
            yield

    return starting


def service(args: dict[str, Any]) -> serve.Application:
    """The deployment, as `serve run` and `serve deploy` ask for it.

    Args:
        args: of the Serve config, see `Arguments`.

    Raises:
        ValueError, UnknownModel: an argument or a setting is wrong, or the model is not in the store of the machine
            that deploys.
    """
    arguments = Arguments.model_validate(args)
    require_model(arguments.model, settings_of(model=arguments.model).model_store)
    deployed = serve.deployment(
        name="karyon",
        num_replicas=arguments.replicas,
        ray_actor_options={"num_gpus": arguments.gpus, "num_cpus": arguments.cpus},
        max_ongoing_requests=NO_LIMIT,
        max_queued_requests=FUSE,
        health_check_period_s=2,
        max_surge_percent=SURGE_PERCENT,
        graceful_shutdown_timeout_s=DRAIN_S,
    )
    return deployed(serve.ingress()(Replica)).bind(arguments.model, arguments.gpus, arguments.cpus)
