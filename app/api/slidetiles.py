"""How do tiles that others cut come to lie on a slide, in any order, from any number of clients, also twice?"""

from __future__ import annotations

import hashlib
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import slideschemas as schemas
from app.api.analysis import GEOJSON, SUMMARY, Result
from app.api.negotiation import choose
from app.api.routes import DOCUMENTED, check_parameters, ready_tenant, services_of
from app.api.services import Order, Prepared, Services
from app.api.slides import OwnSlide, Tenant
from app.api.uploads import check_declared
from app.api.urgency import urgency
from app.api.waiting import timed, while_connected
from app.formats.document import provenance
from app.nuclei.types import Mpp, Profile
from app.serving.budget import Claim
from app.serving.work import WorkClass
from app.slides import documents
from app.slides.analyst import model_key
from app.slides.places import Place, Spot, check_corner
from app.slides.records import ModelKey, NewTile, Slide
from app.slides.store import check_model
from app.telemetry import Record

PARAMETERS = frozenset({"x", "y", "margin", "profile", "model"})
router = APIRouter(prefix="/v1/slides", dependencies=DOCUMENTED, tags=["slides"])


@router.post(
    "/{slide_id}/tiles",
    summary="Analyse a tile and keep it on a slide",
    dependencies=[Depends(ready_tenant)],
    responses=schemas.TILED,
    openapi_extra=schemas.TILE_BODY,
    response_class=Response,
)
async def put(
    request: Request,
    slide: OwnSlide,
    tenant: Tenant,
    x: Annotated[float, Query(description="of the tile's left edge, level-0 pixels")],
    y: Annotated[float, Query(description="of its upper edge")],
    margin: Annotated[float, Query(description="pixels on each side that are context: other tiles answer there")] = 0.0,
    profile: Annotated[Profile | None, Query(description="accurate: the paper's three views; fast: one view")] = None,
    model: Annotated[str | None, Query(description="NAME or NAME@VERSION, see /v1/models", max_length=200)] = None,
) -> Response:
    """Send pixels of level 0 as PNG, JPEG or TIFF. Tiles may overlap or abut and come in any order, also twice.

    The answer holds the nuclei that the tile answers for, in pixels of the slide, each once however tiles overlap; one
    that an edge without margin cuts is marked, and its halves are counted once.
    """
    services, record = services_of(request), request.state.record
    check_parameters(request.query_params, PARAMETERS)
    choose(request.headers.get("accept"), (GEOJSON,))
    check_declared(content_type := request.headers.get("content-type"))
    check_corner(x, y, margin, (slide.width, slide.height))
    wish = urgency(request.headers, WorkClass.INTERACTIVE)
    record.work_class = wish.work_class
    services.check_room(tenant, wish)
    with timed(record, "read"):
        body = await request.body()
    order = Order(slide.mpp, profile, model or services.settings.model, SUMMARY, tenant, wish)
    with services.room.admit():
        data = await services.image(body, content_type)
        written = await while_connected(
            request.receive, _kept(services, slide, Spot(x, y, margin), data, order, record)
        )
    return Response(written, headers={"Cache-Control": "no-store"}, media_type=GEOJSON)


async def _kept(services: Services, slide: Slide, spot: Spot, data: bytes, order: Order, record: Record) -> bytes:
    """The tile's GeoJSON; it is analysed only if it is not there already."""
    prepared = await services.prepare(data, order, record)
    key = _key(services, prepared)
    check_model(slide, key)
    digest = await to_thread.run_sync(_digest, data, limiter=services.decoders)
    library = await to_thread.run_sync(lambda: services.slides.library)
    found = await to_thread.run_sync(library.store.find_tile, slide, spot, digest, key)
    if found is None:
        claim = Claim(order.tenant, order.urgency.work_class, prepared.price.cost, order.urgency.deadline)
        with services.budget.reserve(claim) as held:
            _, result = await services.analyse(prepared, order, held.deadline, record)
        new = _tile(result, slide, spot, key)
        found = (await to_thread.run_sync(library.store.put_tile, slide.id, new)).tile_id
    return await to_thread.run_sync(_written, services, slide, found, prepared)


def _written(services: Services, slide: Slide, tile_id: int, prepared: Prepared) -> bytes:
    store = services.slides.library.store
    is_tumour = prepared.resident.artifact.manifest.tumour_burden_reason is None
    return documents.tile(store.database, store.slide(slide.id), tile_id, is_tumour)


def _key(services: Services, prepared: Prepared) -> ModelKey:
    artifact = prepared.resident.artifact
    own = artifact.manifest.mpp
    mpp = prepared.mpp or Mpp(own, own, "model-default")
    thresholds = services.slides.analysts.facts(prepared.resident).context("", "").thresholds
    return model_key(artifact, prepared.profile, mpp, thresholds)


def _tile(result: Result, slide: Slide, spot: Spot, key: ModelKey) -> NewTile:
    found = result.segmentation
    size = found.width, found.height
    return NewTile(
        place=Place.inside(spot.x, spot.y, *size, spot.margin, (slide.width, slide.height)),
        content_sha256=result.image.sha256,
        model=key,
        nuclei=found.nuclei,
        step=(found.width / found.grid.shape[1], found.height / found.grid.shape[0]),
        qc=found.qc,
        provenance=provenance(found, result.context),
        mpp=found.mpp,
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
