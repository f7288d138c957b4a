"""How do slides come in, how are they found, and how do they leave? The addresses under /v1/slides.

A route that needs a slide asks for `OwnSlide`: the caller's own, or 404.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api import slideschemas as schemas
from app.api.routes import DOCUMENTED, JSON, check_parameters, no_parameters, services_of, tenant_of
from app.api.slideservices import SlideServices, owner_of
from app.api.uploads import media_type
from app.nuclei.errors import PayloadTooLarge, UnsupportedMediaType
from app.nuclei.types import Mpp
from app.slides.library import Library
from app.slides.paths import check_suffix
from app.slides.records import Slide

OCTETS = schemas.OCTETS
MAX_JSON = 64 * 1024
PIECE = 4 * 2**20  # bytes written to the disk at once
router = APIRouter(prefix="/v1/slides", dependencies=DOCUMENTED, tags=["slides"])


def slides_of(request: Request) -> SlideServices:
    """The slides of the application that a request came to."""
    return services_of(request).slides


def own_slide(request: Request, slide_id: str, tenant: Annotated[str, Depends(tenant_of)]) -> Slide:
    """The slide of an address, if it is the caller's; else NotFound."""
    return slides_of(request).slide(slide_id, tenant)


Tenant = Annotated[str, Depends(tenant_of)]
OwnSlide = Annotated[Slide, Depends(own_slide)]


@router.post(
    "",
    status_code=201,
    summary="Register a slide, or upload one",
    responses=schemas.CREATED,
    openapi_extra=schemas.SLIDE_BODY,
    response_class=Response,
)
async def add(
    request: Request,
    tenant: Tenant,
    filename: Annotated[str | None, Query(description="of an uploaded file; only its suffix is used")] = None,
    mpp: Annotated[float | None, Query(description="um per pixel of an uploaded file's level 0")] = None,
) -> Response:
    """Three ways: JSON with the size of a slide of which tiles will come; JSON with the path of a file below the
    service's slide root; or the file itself as the body, streamed to the disk.
    """
    kind = media_type(request.headers.get("content-type"))
    # JSON says all of it in the body; what stands beside it would pass for said
    check_parameters(request.query_params, () if kind == JSON else {"filename", "mpp"})
    services_of(request).lifecycle.require_running()
    if kind == JSON:
        slide = await _register(request, tenant)
    elif kind in ("", OCTETS):
        slide = await _receive(request, tenant, check_suffix(filename), said_mpp(request, mpp))
    else:
        raise UnsupportedMediaType(f"Content-Type must be {JSON} or {OCTETS}")
    location = f"/v1/slides/{slide.id}"
    return Response(orjson.dumps(entry(slide)), 201, {"Location": location, "Cache-Control": "no-store"}, JSON)


@router.head("", include_in_schema=False)
@router.get("", summary="The slides that are kept, newest first", responses=schemas.LISTED, response_class=Response)
def listing(
    request: Request,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=1000, description="slides on a page")] = 100,
    after: Annotated[str | None, Query(description="id of the last slide of the page before")] = None,
) -> Response:
    """A page of slides; `next` is what to give as `after` for the next one, null on the last."""
    check_parameters(request.query_params, {"limit", "after"})
    found = slides_of(request).library.store.list_slides(limit + 1, after, owner_of(tenant))
    following = found[limit - 1].id if len(found) > limit else None
    return answer({"slides": [entry(slide) for slide in found[:limit]], "next": following})


@router.head("/{slide_id}", include_in_schema=False)
@router.get(
    "/{slide_id}",
    summary="One slide and its jobs",
    dependencies=[Depends(no_parameters)],
    responses=schemas.FOUND,
    response_class=Response,
)
def show(request: Request, slide: OwnSlide) -> Response:
    """What the slide is, which model's results it holds, and its jobs, newest first."""
    jobs = slides_of(request).book.of_slide(slide.id)
    return answer(entry(slide) | {"jobs": [{"id": job.id, "state": job.state} for job in jobs]})


@router.patch(
    "/{slide_id}",
    summary="Say how large a pixel of the slide is",
    dependencies=[Depends(no_parameters)],
    responses=schemas.CHANGED,
    openapi_extra=schemas.SCALE_BODY,
    response_class=Response,
)
async def change(request: Request, slide: OwnSlide) -> Response:
    """Give `mpp`, um per pixel of level 0, for a slide whose file says nothing or the wrong thing."""
    value = said_mpp(request, schemas.Scale.read(await read_json(request)).mpp)
    assert value is not None
    library = slides_of(request).library
    return answer(entry(await to_thread.run_sync(library.set_mpp, slide, value)))


@router.delete(
    "/{slide_id}",
    status_code=204,
    summary="Delete a slide",
    dependencies=[Depends(no_parameters)],
    responses=schemas.GONE,
)
def delete(request: Request, slide: OwnSlide) -> Response:
    """Forget the slide, its results and its jobs, and remove its uploaded file."""
    slides_of(request).library.delete(slide.id)
    slides_of(request).views.forget(slide.id)
    return Response(status_code=204)


def answer(body: Any, status: int = 200) -> Response:
    """JSON that no cache keeps."""
    return Response(orjson.dumps(body), status, {"Cache-Control": "no-store"}, JSON)


def entry(slide: Slide) -> dict[str, Any]:
    """A slide as it is written."""
    mpp, model = slide.mpp, slide.model
    return {
        "id": slide.id,
        "origin": slide.origin,
        "path": slide.path if slide.origin == "rooted" else None,
        "format": slide.vendor,
        "width": slide.width,
        "height": slide.height,
        "mpp_x": mpp.x if mpp else None,
        "mpp_y": mpp.y if mpp else None,
        "mpp_source": mpp.source if mpp else None,
        "bytes": slide.file_bytes,
        "model": model and {key: getattr(model, key) for key in ("name", "version", "sha256", "profile")},
        "created": moment(slide.created_ms),
        "changed": moment(slide.touched_ms),
    }


def moment(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def said_mpp(request: Request, value: float | None) -> float | None:
    """A scale that a caller gave.

    Raises:
        InvalidParameter: if it is out of the range that this service accepts.
    """
    return None if value is None else services_of(request).limits.mpp(value, "request")


async def read_json(request: Request) -> bytes:
    """The body of a request that is JSON.

    Raises:
        UnsupportedMediaType: if it says that it is something else.
        PayloadTooLarge: if it is longer than any that makes sense.
    """
    if media_type(request.headers.get("content-type")) not in ("", JSON):
        raise UnsupportedMediaType(f"Content-Type must be {JSON}")
    return await _json(request)


async def _json(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_JSON:
            raise PayloadTooLarge(f"a body of JSON has at most {MAX_JSON} bytes here")
    return bytes(body)


async def _register(request: Request, tenant: str) -> Slide:
    new = schemas.NewSlide.read(await _json(request))
    value, owner = said_mpp(request, new.mpp), owner_of(tenant)
    mpp = None if value is None else Mpp(value, value)

    def register() -> Slide:
        library = slides_of(request).library
        if new.path is not None:
            return library.add_path(new.path, mpp, owner)
        assert new.width is not None
        assert new.height is not None
        return library.add_blank(new.width, new.height, mpp, owner)

    return await to_thread.run_sync(register)


async def _receive(request: Request, tenant: str, suffix: str, value: float | None) -> Slide:
    """Stream an uploaded file to the disk; whatever interrupts it, nothing is left behind."""
    library: Library = await to_thread.run_sync(lambda: slides_of(request).library)
    upload = await to_thread.run_sync(library.files.begin, suffix)
    try:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal():
            await to_thread.run_sync(upload.announce, int(announced[:19]))
        async for piece in _pieces(request):
            await to_thread.run_sync(upload.write, piece)
        mpp = None if value is None else Mpp(value, value)
        return await to_thread.run_sync(library.add_upload, upload, mpp, owner_of(tenant))
    finally:
        upload.__exit__()


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces worth a write."""
    held = bytearray()
    async for piece in request.stream():
        held += piece
        if len(held) >= PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
