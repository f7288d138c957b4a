"""How does a viewer see a slide and its nuclei? Tiles of picture and overlay, and the nuclei of a viewport."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from starlette.datastructures import QueryParams
from starlette.responses import Response

from app.api import viewschemas as schemas
from app.api.conditional import ASK_AGAIN, FOR_A_DAY, conditional, etag
from app.api.routes import DOCUMENTED, JSON, check_parameters, services_of
from app.api.slides import OwnSlide, slides_of
from app.formats import geojson
from app.formats.table import UNCLASSIFIED
from app.nuclei.artifact import Artifact, list_artifacts, read_manifest
from app.nuclei.errors import ArtifactError, InvalidParameter, NotFound
from app.nuclei.taxonomy import CLASSES
from app.slides import documents
from app.slides.composition import Region
from app.slides.places import Box
from app.slides.pyramid import PyramidTile
from app.slides.records import ModelKey, Slide
from app.slides.summary import summary
from app.slides.views import Views, pyramid, version

DZI = "application/xml"
MAX_REGION = 16_384  # characters: a thousand corners
router = APIRouter(prefix="/v1/slides", dependencies=DOCUMENTED, tags=["views"])
KIND_OF = {UNCLASSIFIED: 0} | {each.name: each.id for each in CLASSES}
Classes = Annotated[
    str | None,
    Query(description=f"classes to be shown, separated by commas: {', '.join(KIND_OF)}; unset: all; empty: none"),
]


def views_of(request: Request) -> Views:
    """The views of the application that a request came to."""
    return slides_of(request).views


def kinds_of(classes: str | None) -> frozenset[int] | None:
    """Ids of the classes that a caller named; None if it named none.

    Raises:
        InvalidParameter: if one of them does not exist.
    """
    if classes is None:
        return None
    names = [name.strip() for name in classes.split(",") if name.strip()]
    if unknown := [name for name in names if name not in KIND_OF]:
        shown = unknown[0] if re.fullmatch(r"[A-Za-z0-9 _-]{1,32}", unknown[0]) else "?"
        raise InvalidParameter("classes", f"there is no class {shown}; there are {', '.join(KIND_OF)}")
    return frozenset(KIND_OF[name] for name in names)


def check_asked(request: Request, known: set[str]) -> None:
    """As `check_parameters`; but no class at all may be asked for, as a viewer does that hides them one by one."""
    given = [
        (name, value or ("none" if name == "classes" else "")) for name, value in request.query_params.multi_items()
    ]
    check_parameters(QueryParams(given), known)


def box_of(text: str, name: str = "bbox") -> Box:
    """A box that a caller wrote as x0,y0,x1,y1.

    Raises:
        InvalidParameter: if it is none, or empty.
    """
    sides = numbers(text, name)
    if len(sides) != 4:
        raise InvalidParameter(name, f"{name} is x0,y0,x1,y1 in pixels of level 0")
    if not (sides[0] < sides[2] and sides[1] < sides[3]):
        raise InvalidParameter(name, f"{name} is empty: x0 lies before x1, and y0 before y1")
    return Box(*sides)


def numbers(text: str, name: str) -> list[float]:
    """Finite numbers separated by commas.

    Raises:
        InvalidParameter: if something else is among them.
    """
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(math.isfinite(each) and abs(each) < 2**40 for each in found):
        raise InvalidParameter(name, f"{name} is a list of numbers, separated by commas")
    return found


def tile_of(slide: Slide, level: str, col: str, row: str) -> PyramidTile:
    """The tile of an address.

    Raises:
        NotFound: if there is none.
    """
    if not all(re.fullmatch(r"[0-9]{1,10}", each) for each in (level, col, row)):
        raise NotFound("a tile's address reads LEVEL/COLUMN_ROW, all whole numbers")
    return pyramid(slide).tile(int(level), int(col), int(row))


@router.head("/{slide_id}/overlay.dzi", include_in_schema=False)
@router.get(
    "/{slide_id}/overlay.dzi",
    summary="The overlay's levels, as Deep Zoom",
    responses=schemas.DESCRIBED,
    response_class=Response,
)
def overlay_descriptor(request: Request, slide: OwnSlide, classes: Classes = None) -> Response:
    """The same levels and tiles as those of the slide's picture. A viewer carries `classes` over to the tiles."""
    check_asked(request, {"classes"})
    kinds_of(classes)
    tag = etag("overlay.dzi", slide.width, slide.height)
    return conditional(request, tag, FOR_A_DAY, DZI, lambda: pyramid(slide).descriptor("png"))


@router.head("/{slide_id}/overlay_files/{level}/{col}_{row}.png", include_in_schema=False)
@router.get(
    "/{slide_id}/overlay_files/{level}/{col}_{row}.png",
    summary="A tile of the overlay",
    responses=schemas.OVERLAID,
    response_class=Response,
)
def overlay_tile(
    request: Request, slide: OwnSlide, level: str, col: str, row: str, classes: Classes = None
) -> Response:
    """PNG on a transparent ground: outlines in the class colours when close, density when far."""
    check_asked(request, {"classes"})
    views, tile, kinds = views_of(request), tile_of(slide, level, col, row), kinds_of(classes)
    tag = etag("overlay", version(slide), tile, views.outlines_to, None if kinds is None else sorted(kinds))
    return conditional(request, tag, ASK_AGAIN, "image/png", lambda: views.overlay(slide, tile, kinds))


@router.head("/{slide_id}/image.dzi", include_in_schema=False)
@router.get(
    "/{slide_id}/image.dzi",
    summary="The slide's levels, as Deep Zoom",
    responses=schemas.PICTURED,
    response_class=Response,
)
def image_descriptor(request: Request, slide: OwnSlide) -> Response:
    """Only of a slide whose file the service has; one that came as tiles has no picture."""
    check_parameters(request.query_params, ())
    slides_of(request).library.check(slide)
    tag = etag("image.dzi", slide.width, slide.height)
    return conditional(request, tag, FOR_A_DAY, DZI, lambda: pyramid(slide).descriptor("jpg"))


@router.head("/{slide_id}/image_files/{level}/{col}_{row}.jpg", include_in_schema=False)
@router.get(
    "/{slide_id}/image_files/{level}/{col}_{row}.jpg",
    summary="A tile of the slide's picture",
    responses=schemas.PICTURE,
    response_class=Response,
)
def image_tile(request: Request, slide: OwnSlide, level: str, col: str, row: str) -> Response:
    """JPEG; averaged down from the coarsest level of the file that is fine enough."""
    check_parameters(request.query_params, ())
    tile = tile_of(slide, level, col, row)
    slides_of(request).library.check(slide)
    tag = etag("image", slide.id, slide.file_bytes, slide.file_mtime_ns, tile)
    return conditional(request, tag, FOR_A_DAY, "image/jpeg", lambda: views_of(request).picture(slide, tile))


@router.head("/{slide_id}/nuclei", include_in_schema=False)
@router.get(
    "/{slide_id}/nuclei",
    summary="The nuclei of a viewport",
    responses=schemas.VIEWED,
    response_class=Response,
)
def nuclei(
    request: Request,
    slide: OwnSlide,
    bbox: Annotated[str, Query(description="x0,y0,x1,y1 in pixels of level 0", max_length=200)],
    classes: Classes = None,
) -> Response:
    """Every nucleus whose box meets the viewport, unclipped, as GeoJSON in pixels of level 0."""
    check_asked(request, {"bbox", "classes"})
    views, box, kinds = views_of(request), box_of(bbox), kinds_of(classes)
    tag = etag("nuclei", version(slide), box, None if kinds is None else sorted(kinds), views.most_nuclei)

    def make() -> bytes:
        mpp = documents.scale(views.database, slide)
        return documents.viewport(slide, mpp, box, views.nuclei(slide, box, kinds))

    return conditional(request, tag, ASK_AGAIN, geojson.MEDIA_TYPE, make)


@router.head("/{slide_id}/summary", include_in_schema=False)
@router.get(
    "/{slide_id}/summary",
    summary="What the slide, or a region of it, is made of",
    responses=schemas.SUMMED,
    response_class=Response,
)
def summed(
    request: Request,
    slide: OwnSlide,
    region: Annotated[
        str | None,
        Query(
            description="x0,y0,x1,y1 of a box, or x,y of each corner of a polygon, in pixels of level 0; unset: all",
            max_length=MAX_REGION,
        ),
    ] = None,
) -> Response:
    """Counts by centroid, shares with 95 % intervals, density over the analysed area, warnings and provenance.

    Nuclei of one kind lie together. The intervals therefore take the analysed windows as clusters: Wilson's interval
    for as many nuclei as the counted ones are worth (their number over the design effect).
    """
    check_parameters(request.query_params, {"region"})
    part = None if region is None else Region.of(numbers(region, "region"))
    tag = etag("summary", version(slide), region)
    store = services_of(request).settings.model_store

    def make() -> bytes:
        return orjson.dumps(summary(views_of(request).database, slide, part, why_no_burden(store, slide.model)))

    return conditional(request, tag, ASK_AGAIN, JSON, make)


def why_no_burden(store: Path | None, model: ModelKey | None) -> str | None:
    """Why the epithelium that a model finds does not stand for tumour; None if its card says that it does."""
    for folder, _ in list_artifacts(store):
        try:
            manifest = read_manifest(folder / "manifest.json")
        except ArtifactError:
            continue
        if model is not None and Artifact(folder, manifest).sha256 == model.sha256:
            return manifest.tumour_burden_reason
    return "the model is no longer in the store, so nothing says whether its epithelium stands for tumour"
