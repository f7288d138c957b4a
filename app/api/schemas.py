"""What does the OpenAPI document say about requests and answers? Models for documentation; no result passes through.

Answers are written straight to bytes by `app.formats`: validating each of thousands of nuclei would cost more time
than finding them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.analysis import WRITERS
from app.api.errors import PROBLEM, Answer
from app.api.explained import QC_CODES, RETRY_AFTER, WAITING, asked_headers
from app.api.uploads import FIELD, FORM, IMAGE_TYPES
from app.formats.document import NOTICE
from app.nuclei.taxonomy import CLASSES, NAMES

Json = dict[str, Any]


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")
    type: str = Field(description="urn:karyon:problem:<slug>; stable, for programs")
    title: str = Field(description="the kind of problem, for people")
    status: int
    detail: str = Field(description="what is wrong with this request")
    instance: str = Field(description="id of this request, as in the header X-Request-Id and in the service's log")
    retry_after_seconds: int | None = Field(None, description="as the header Retry-After, which 429 and 503 may have")
    errors: list[dict[str, str]] | None = Field(None, description="each offending parameter and what is wrong with it")


class TumourBurden(BaseModel):
    """Share of epithelial nuclei with its 95 % interval."""

    value: float
    low: float
    high: float


class Summary(BaseModel):
    """What was counted."""

    total: int
    counts: dict[str, int] = Field(description="nuclei per class, zeros included")
    composition_224: dict[str, int] | None = Field(description="of a 256x256 image: nuclei in its central 224x224")
    density_per_mm2: dict[str, float] = Field(
        description="count per class by the area of the whole image, glass included; not by the area of tissue in it"
    )
    tumour_burden: TumourBurden | None
    tumour_burden_reason: str | None


class Qc(BaseModel):
    """Technical warnings about the image; no diagnosis."""

    verdict: Literal["pass", "warn", "fail"]
    codes: list[str] = Field(description="; ".join(f"{code}: {meaning}" for code, meaning in QC_CODES.items()))
    measures: dict[str, float]


class CoordinateSpace(BaseModel):
    """What coordinates mean: pixels of the upright image sent, origin at its top left corner, (x, y)."""

    unit: Literal["pixel"]
    origin: Literal["top-left"]
    level: int
    width: int
    height: int
    mpp_x: float
    mpp_y: float
    mpp_source: Literal["request", "file", "model-default"]


class Members(BaseModel):
    """What surrounds the nuclei."""

    notice: str
    coordinate_space: CoordinateSpace
    summary: Summary
    qc: Qc
    provenance: dict[str, Any]


class Collection(Members):
    """A GeoJSON feature collection, one feature per nucleus, as QuPath reads it."""

    type: Literal["FeatureCollection"]
    features: list[dict[str, Any]]


class ModelEntry(BaseModel):
    """A model in the store."""

    name: str
    version: str
    sha256: str = Field(description="digest of the weights")
    active: bool = Field(description="whether a request that names no version gets this one")
    classes: list[str]
    mpp: float = Field(description="um per pixel that it works at")
    patch_sizes: list[int]
    licence: str
    training_data: str
    scores: dict[str, Any]


class Unshipped(BaseModel):
    """A model that the documentation speaks of, but that is not in the store."""

    name: str
    reason: str


class ModelList(BaseModel):
    """All models that requests can name, and those they might expect."""

    models: list[ModelEntry]
    not_shipped: list[Unshipped]


class Health(BaseModel):
    """State of this process."""

    state: Literal["starting", "ready", "failed", "draining"]


_ONE = dict.fromkeys(NAMES, 0) | {"lymphocyte": 1}
_MEMBERS_EXAMPLE: Json = {
    "notice": NOTICE,
    "coordinate_space": {
        "unit": "pixel",
        "origin": "top-left",
        "level": 0,
        "width": 512,
        "height": 512,
        "mpp_x": 0.5,
        "mpp_y": 0.5,
        "mpp_source": "request",
    },
    "summary": {
        "total": 1,
        "counts": _ONE,
        "composition_224": None,
        "density_per_mm2": dict.fromkeys(NAMES, 0.0) | {"lymphocyte": 15.26},
        "tumour_burden": None,
        "tumour_burden_reason": "the model does not tell tumour from healthy epithelium",
    },
    "qc": {"verdict": "pass", "codes": [], "measures": {"tissue_fraction": 0.94}},
    "provenance": {"request_id": "7d0e2a54", "model": {"name": "karyon-lite", "version": "1"}, "profile": "fast"},
}
_FEATURE_EXAMPLE: Json = {
    "type": "Feature",
    "id": "3f0c1f6e-6f0e-5a55-9e0e-0a4b9d1d2c11",
    "geometry": {
        "type": "Polygon",
        "coordinates": [[[20, 30], [28, 30], [28, 36], [26, 36], [26, 38], [20, 38], [20, 30]]],
    },
    "properties": {
        "objectType": "detection",
        "classification": {"name": "lymphocyte", "color": list(CLASSES[2].colour)},
        "measurements": {"Probability: lymphocyte": 0.93, "Area um^2": 15, "Area px^2": 60, "Uncertain": 0},
    },
}
COLLECTION_EXAMPLE: Json = {"type": "FeatureCollection", **_MEMBERS_EXAMPLE, "features": [_FEATURE_EXAMPLE]}

_BINARY: Json = {"type": "string", "format": "binary"}
SEGMENT_BODY: Json = {
    "parameters": asked_headers(["interactive", "bulk"]),
    "requestBody": {
        "required": True,
        "description": "the image itself, or a form with one field `image`",
        "content": {kind: {"schema": _BINARY} for kind in IMAGE_TYPES}
        | {FORM: {"schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _BINARY}}}},
    },
    "x-codeSamples": [
        {"lang": "shell", "source": "curl --data-binary @tile.png -H 'Content-Type: image/png' "
         "'http://127.0.0.1:8000/v1/segment?mpp=0.5' -o nuclei.geojson"},
        {"lang": "shell", "source": "curl -F image=@tile.jpg -H 'Accept: text/csv' "
         "'http://127.0.0.1:8000/v1/segment?mpp=0.25&profile=accurate' -o nuclei.csv"},
    ],
}  # fmt: skip
BATCH_BODY: Json = {
    "parameters": asked_headers(["bulk"]),
    "requestBody": {
        "required": True,
        "description": "a form in which the field `image` is repeated",
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": _BINARY}},
                }
            }
        },
    },
    "x-codeSamples": [
        {"lang": "shell", "source": "curl -N -F image=@a.png -F image=@b.png "
         "'http://127.0.0.1:8000/v1/segment/batch?mpp=0.5'"},
    ],
}  # fmt: skip
_ANSWERS: dict[str, Json] = {
    "application/geo+json": {"schema": Collection.model_json_schema(), "example": COLLECTION_EXAMPLE},
    "application/json": {"schema": Members.model_json_schema(), "example": _MEMBERS_EXAMPLE},
    "image/png": {"schema": _BINARY},
    "text/csv": {"schema": {"type": "string"}},
    "application/vnd.hovernet+json": {"schema": {"type": "object"}},
}
_SEGMENTED: Json = {
    "description": "the nuclei, in the form that `Accept` asks for",
    "content": {kind: _ANSWERS[kind] for kind in WRITERS},
    "headers": {
        name: {"description": meaning, "schema": {"type": "string"}}
        for name, meaning in {
            "Model-Version": "name/version@sha256:digest of the weights",
            "Karyon-QC": "verdict of the technical check: pass, warn or fail",
            "Karyon-QC-Codes": "its codes, comma-separated; absent if there are none",
            "Karyon-Notice": "research-use-only",
            "X-Request-Id": "id of this request",
            "Server-Timing": "milliseconds per stage",
        }.items()
    },
}


SEGMENTED: dict[int | str, Json] = {200: _SEGMENTED}
NDJSON = "application/x-ndjson"
BATCHED: dict[int | str, Json] = {
    200: {
        "description": "a line of JSON per image as it is done, the last one says so",
        "content": {NDJSON: {"schema": {"type": "string"}, "example": '{"index": 0, "status": 200, "result": {}}'}},
    }
}
LISTED: dict[int | str, Json] = {200: {"model": ModelList}}
HEALTHY: dict[int | str, Json] = {200: {"model": Health}}


def problems(*answers: Answer) -> dict[int | str, Json]:
    """OpenAPI responses for some rows of the answer table, with an example of each."""
    responses: dict[int | str, Json] = {}
    for answer in answers:
        response = responses.setdefault(answer.status, _problem_response(answer.status))
        response["description"] = ", ".join(filter(None, [response["description"], answer.slug]))
        response["content"][PROBLEM]["examples"][answer.slug] = {"value": _problem_example(answer)}
    return responses


def _problem_response(status: int) -> Json:
    content = {PROBLEM: {"schema": Problem.model_json_schema(), "examples": {}}}
    return {"description": "", "content": content} | ({"headers": RETRY_AFTER} if status in WAITING else {})


def _problem_example(answer: Answer) -> Json:
    example = {
        "type": f"urn:karyon:problem:{answer.slug}",
        "title": answer.title,
        "status": answer.status,
        "detail": "what is wrong with this request",
        "instance": "7d0e2a54",
    }
    return example | ({"retry_after_seconds": 5} if answer.status in WAITING else {})
