"""Which addresses are there, and what does each do with a request?"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import QueryParams
from starlette.responses import HTMLResponse, Response

from app.api import explained, health, page, schemas
from app.api.analysis import WRITERS
from app.api.errors import Unauthenticated
from app.api.negotiation import choose
from app.api.observing import refresh
from app.api.security import identify
from app.api.services import Order, Services
from app.api.uploads import check_declared
from app.api.urgency import urgency
from app.api.waiting import timed, while_connected
from app.nuclei import errors as domain
from app.nuclei.artifact import Artifact, list_artifacts, read_manifest
from app.nuclei.errors import ArtifactError, DeviceFault, InvalidParameter
from app.nuclei.types import Profile
from app.serving.work import WorkClass
from app.telemetry import Record, log

JSON = "application/json"
PARAMETERS = frozenset({"mpp", "profile", "model"})
NOT_ALIVE = schemas.problems(*explained.answers(DeviceFault))
NOT_READY = schemas.problems(*explained.answers(domain.NotReady, domain.Draining, DeviceFault))
NOT_SHIPPED = {
    "karyon-ensemble": "the paper's ensemble (SEResNeXt50 + SEResNeXt101) is not trained yet but for a short trial "
    "that scores below karyon-lite, so it is not shipped; karyon models import FOLDER takes one that is trained"
}

DOCUMENTED = [Depends(HTTPBearer(auto_error=False)), Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]
router = APIRouter()
v1 = APIRouter(prefix="/v1", dependencies=DOCUMENTED)


def services_of(request: Request) -> Services:
    """The parts of the application that a request came to."""
    services: Services = request.app.state.services
    return services


async def tenant_of(request: Request) -> str:  # not a thread's work: a hop would cost more than it does
    """Who is calling; see `app.api.security`."""
    settings = services_of(request).settings
    return identify(request, settings.api_keys, settings.allow_anonymous, settings.trusted_proxies)


async def ready_tenant(request: Request) -> str:
    """Who is calling, once the service can serve them."""
    tenant = await tenant_of(request)
    services_of(request).lifecycle.require_open()
    return tenant


@v1.post(
    "/segment",
    summary="Find and classify the nuclei of one image",
    responses=schemas.SEGMENTED | schemas.problems(*explained.answers(*explained.SEGMENT_REFUSALS)),
    openapi_extra=schemas.SEGMENT_BODY,
    response_class=Response,
)
async def segment(
    request: Request,
    tenant: Annotated[str, Depends(ready_tenant)],
    mpp: Annotated[float | None, Query(description="um per pixel; default: the file's own, else the model's")] = None,
    profile: Annotated[Profile | None, Query(description="accurate: the paper's three views; fast: one view")] = None,
    model: Annotated[str | None, Query(description="NAME or NAME@VERSION, see /v1/models", max_length=200)] = None,
) -> Response:
    """Send a PNG, JPEG or TIFF as body, or as the field `image` of a form. `Accept` decides the form of the answer.

    Coordinates in the answer are pixels of the upright image, (x, y) from its top left corner.
    """
    services, record = services_of(request), request.state.record
    check_parameters(request.query_params)
    media_type = choose(request.headers.get("accept"), tuple(WRITERS))
    content_type = request.headers.get("content-type")
    check_declared(content_type)
    wish = urgency(request.headers, WorkClass.INTERACTIVE)
    record.work_class = wish.work_class
    services.check_room(tenant, wish)
    with timed(record, "read"):
        body = await request.body()
    order = Order(mpp, profile, model or services.settings.model, media_type, tenant, wish)
    with services.room.admit():
        work = services.answer(body, content_type, order, record)
        written = await while_connected(request.receive, work)
    return Response(written.body, headers={**written.headers, **timing(record)}, media_type=media_type)


def check_parameters(given: QueryParams, known: Collection[str] = PARAMETERS) -> None:
    """Refuse query parameters that do not exist, come twice or are empty: no slip must pass for a default.

    Raises:
        InvalidParameter: naming the first one.
    """
    for name in given:
        if name not in known:
            shown = name if re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name) else "?"
            others = f"there are {', '.join(sorted(known))}" if known else "this address takes none"
            raise InvalidParameter(shown, f"there is no such parameter; {others}")
        if len(given.getlist(name)) > 1:
            raise InvalidParameter(name, f"{name} is given more than once")
        if not given[name]:
            raise InvalidParameter(name, f"{name} is given without a value; say one, or leave it out")


def no_parameters(request: Request) -> None:
    """For an address that takes no query parameters; see `check_parameters`."""
    check_parameters(request.query_params, ())


def timing(record: Record) -> dict[str, str]:
    """Where the time of a request went."""
    return {"Server-Timing": ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in record.stages.items())}


@v1.head("/models", dependencies=[Depends(tenant_of)], include_in_schema=False)
@v1.get(
    "/models",
    summary="The models that requests can name",
    dependencies=[Depends(tenant_of)],
    responses=schemas.LISTED | schemas.problems(*explained.answers(Unauthenticated)),
    response_class=Response,
)
def models(request: Request) -> Response:
    """Name, digest, licence, training data and scores of each model in the store; and what one might miss there."""
    entries = list(model_entries(list_artifacts(services_of(request).settings.model_store)))
    there = {entry["name"] for entry in entries}
    missing = [{"name": name, "reason": why} for name, why in NOT_SHIPPED.items() if name not in there]
    return Response(orjson.dumps({"models": entries, "not_shipped": missing}), media_type=JSON)


def model_entries(folders: Iterable[tuple[Any, bool]]) -> Iterable[dict[str, Any]]:
    """One entry per readable model folder; one that cannot be read is logged and left out."""
    for folder, active in folders:
        try:
            manifest = read_manifest(folder / "manifest.json")
        except ArtifactError as error:
            log("model left out of the list", reason=str(error))
            continue
        yield {
            "name": manifest.name,
            "version": manifest.version,
            "sha256": Artifact(folder, manifest).sha256,
            "active": active,
            "classes": manifest.classes,
            "mpp": manifest.mpp,
            "patch_sizes": manifest.patch_sizes,
            "licence": manifest.licence,
            "training_data": manifest.training_data,
            "scores": manifest.scores,
        }


def _state(state: str) -> Response:
    return Response(orjson.dumps({"state": state}), headers={"Cache-Control": "no-store"}, media_type=JSON)


@router.head("/healthz/startup", include_in_schema=False)
@router.get(
    "/healthz/startup", summary="Is the start over?", responses=schemas.HEALTHY | NOT_READY, response_class=Response
)
async def startup(request: Request) -> Response:
    """200 once the model was loaded, well or badly; until then 503."""
    return _state(health.startup(services_of(request)))


@router.head("/healthz/ready", include_in_schema=False)
@router.get(
    "/healthz/ready", summary="May requests be sent?", responses=schemas.HEALTHY | NOT_READY, response_class=Response
)
async def ready(request: Request) -> Response:
    """200 while the model is proven, the device well and the service not stopping. Load never changes it."""
    return _state(health.ready(services_of(request)))


@router.head("/healthz/live", include_in_schema=False)
@router.get(
    "/healthz/live",
    summary="Does the process get anywhere?",
    responses=schemas.HEALTHY | NOT_ALIVE,
    response_class=Response,
)
async def live(request: Request) -> Response:
    """200 as long as the event loop turns, the device is well, and work that is there gets done."""
    return _state(health.live(services_of(request)))


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    services = services_of(request)
    refresh(services)
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.head("/docs", include_in_schema=False)
@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The API on one page that asks nothing of any other server."""
    return HTMLResponse(page.render(request.app.openapi()), headers={"Content-Security-Policy": page.POLICY})
