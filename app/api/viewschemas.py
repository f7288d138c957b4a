"""What does the OpenAPI document say about what viewers ask for?"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.api.schemas import Collection, CoordinateSpace, Json, TumourBurden
from app.api.slideschemas import Responses, answers
from app.formats import dicom, geojson, hovernet, parquet, table
from app.nuclei import errors as domain


class Share(BaseModel):
    """Share of a class among all nuclei with its 95 % interval."""

    value: float
    low: float
    high: float


class Interval(BaseModel):
    """How the intervals were made."""

    level: float
    method: str
    windows: int = Field(description="that hold a nucleus, and count as clusters")


class SlideQc(BaseModel):
    """Technical warnings, window by window."""

    verdict: Literal["pass", "warn", "fail"] = Field(
        description="the worst that at least 5 % of the windows with tissue bear"
    )
    codes: list[str]
    measures: dict[str, float]
    windows_per_verdict: dict[str, int]
    windows_per_code: dict[str, int]


class RegionEntry(BaseModel):
    """The region that was asked for."""

    corners: list[list[float]]
    area_px: float
    area_mm2: float | None


class SlideSummary(BaseModel):
    """What was counted on a slide or a region of it, each nucleus once, by its centroid."""

    notice: str
    coordinate_space: CoordinateSpace
    region: RegionEntry | None
    total: int
    counts: dict[str, int] = Field(description="nuclei per class, zeros included")
    unclassified: int = Field(description="nuclei of no class")
    composition_224: None
    composition: dict[str, Share | None] = Field(description="share of each class among all nuclei")
    interval: Interval
    density_per_mm2: dict[str, float] | None = Field(description="over the analysed area; null where it has no scale")
    tumour_burden: TumourBurden | None
    tumour_burden_reason: str | None
    area_px: float = Field(description="analysed, in pixels of level 0")
    area_mm2: float | None
    windows: int = Field(description="tiles and windows that were analysed")
    qc: SlideQc
    provenance: dict[str, Any]


def _binary(media_type: str, meaning: str) -> Json:
    headers = {"ETag": {"description": "changes with the content", "schema": {"type": "string"}}}
    return {"description": meaning, "content": {media_type: {"schema": _BYTES}}, "headers": headers}


_BYTES: Json = {"type": "string", "format": "binary"}
_UNCHANGED: Responses = {304: {"description": "what `If-None-Match` names still holds"}}


def _shown(said: Json, *refusals: type[domain.Refusal]) -> Responses:
    return answers(200, said, domain.NotFound, domain.InvalidParameter, *refusals) | _UNCHANGED


_FILE = (domain.Conflict, domain.InvalidImage, domain.UnsupportedMediaType, domain.PayloadTooLarge)
_COLLECTION: Json = {
    "description": "the nuclei",
    "content": {geojson.MEDIA_TYPE: {"schema": Collection.model_json_schema()}},
}
DESCRIBED = _shown(_binary("application/xml", "the descriptor"))
OVERLAID = _shown(_binary("image/png", "the tile"))
PICTURED = _shown(_binary("application/xml", "the descriptor"), domain.Conflict)
PICTURE = _shown(_binary("image/jpeg", "the tile"), *_FILE)
VIEWED = _shown(_COLLECTION, domain.ViewportTooDense)
SUMMED = _shown({"model": SlideSummary})
EXPORTED = _shown(
    {
        "description": "the file",
        "content": {kind: {"schema": _BYTES} for kind in (geojson.MEDIA_TYPE, hovernet.MEDIA_TYPE, table.MEDIA_TYPE)}
        | {kind: {"schema": _BYTES} for kind in (parquet.MEDIA_TYPE, dicom.MEDIA_TYPE)},
        "headers": {"Content-Disposition": {"description": "a file name", "schema": {"type": "string"}}},
    },
    *(domain.NotDicom, domain.MppRequired, domain.Conflict, domain.InvalidImage, domain.PayloadTooLarge),
)
