"""How does a caller take all nuclei of a slide home?"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from app.api import viewschemas as schemas
from app.api.conditional import ASK_AGAIN, etag, holds
from app.api.routes import DOCUMENTED, check_parameters, services_of
from app.api.slides import OwnSlide, slides_of
from app.api.views import why_no_burden
from app.formats import dicom, geojson, hovernet, parquet, table
from app.slides.exports import WRITERS, Export
from app.slides.views import version

router = APIRouter(prefix="/v1/slides", dependencies=DOCUMENTED, tags=["views"])
Format = Literal["geojson", "hovernet", "csv", "parquet", "dicom-ann", "dicom-seg", "dicom-sr"]
KINDS = {  # media type, suffix of the file, whether packing makes it smaller
    "geojson": (geojson.MEDIA_TYPE, "geojson", True),
    "hovernet": (hovernet.MEDIA_TYPE, "json", True),
    "csv": (table.MEDIA_TYPE, "csv", True),
    "parquet": (parquet.MEDIA_TYPE, "parquet", False),
    "dicom-ann": (dicom.MEDIA_TYPE, "dcm", True),
    "dicom-seg": (dicom.MEDIA_TYPE, "dcm", True),
    "dicom-sr": (dicom.MEDIA_TYPE, "dcm", True),
}


@router.head("/{slide_id}/export", include_in_schema=False)
@router.get(
    "/{slide_id}/export",
    summary="All nuclei of a slide as a file",
    responses=schemas.EXPORTED,
    response_class=Response,
)
def export(
    request: Request,
    slide: OwnSlide,
    form: Annotated[Format, Query(alias="format", description="of the file")] = "geojson",
) -> Response:
    """Streamed tile by tile. A slide without results gives a file without nuclei.

    One that is written while a job runs holds what was there when each part was written; its summary says so. DICOM
    objects begin to arrive when they are complete; they are refused for a slide without results, or if it changes.
    """
    check_parameters(request.query_params, {"format"})
    media_type, suffix, packable = KINDS[form]
    packed = packable and accepts_gzip(request.headers.get("accept-encoding", ""))
    tag = etag("export", version(slide), form, packed)
    headers = {"ETag": tag, "Cache-Control": ASK_AGAIN, "Vary": "Accept-Encoding"}
    if holds(request, tag):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="slide-{slide.id}.{suffix}"'
    headers |= {"Content-Encoding": "gzip"} if packed else {}
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media_type)
    why_not = why_no_burden(services_of(request).settings.model_store, slide.model)
    library = slides_of(request).library
    pieces = WRITERS[form](Export(library.store.database, slide, why_not, partial(library.check, slide)))
    begun = chain([next(pieces)], pieces)  # what is refused is refused before the answer begins
    return StreamingResponse(gzipped(begun) if packed else begun, headers=headers, media_type=media_type)


def accepts_gzip(accepted: str) -> bool:
    """Whether a caller unpacks gzip: `Accept-Encoding` names it, and not with a weight of 0."""
    for entry in accepted.split(","):
        name, _, weight = entry.partition(";")
        if name.strip().lower() in ("gzip", "x-gzip"):
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same, packed quickly rather than tightly."""
    packer = zlib.compressobj(1, wbits=31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
