"""What may stand in requests about slides and jobs, and what does the OpenAPI document say about the answers?"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.api.errors import ANSWER, Forbidden, RequestTimeout, Unauthenticated
from app.api.schemas import COLLECTION_EXAMPLE, SEGMENT_BODY, Json, problems
from app.nuclei import errors as domain
from app.nuclei.errors import InvalidParameter

GEOJSON = "application/geo+json"
OCTETS = "application/octet-stream"


class Asked(BaseModel):
    """A body of JSON; members that do not exist are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def read(cls, body: bytes) -> Self:
        """From the bytes of a request; an empty body is an empty object.

        Raises:
            InvalidParameter: naming the first member that is wrong.
        """
        try:
            return cls.model_validate_json(body or b"{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "body"
            raise InvalidParameter(name[:32], f"{name[:32]}: {first['msg'].removeprefix('Value error, ')}") from None


MPP: Any = Field(None, allow_inf_nan=False, description="um per pixel of level 0")


class NewSlide(Asked):
    """A slide of which tiles will come (width and height), or one below the slide root (path)."""

    width: int | None = Field(None, description="pixels of level 0")
    height: int | None = Field(None, description="pixels of level 0")
    path: str | None = Field(None, max_length=1024, description="below the slide root, with forward slashes")
    mpp: float | None = MPP

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        sizes = [self.width is not None, self.height is not None]
        if not (all(sizes) if self.path is None else not any(sizes)):
            raise ValueError("give width and height, or path")
        return self


class Scale(Asked):
    """How large a pixel is."""

    mpp: float = Field(allow_inf_nan=False, description="um per pixel of level 0")


class NewJob(Asked):
    """What is to be analysed, and how; all of it may be left out."""

    region: tuple[float, float, float, float] | None = Field(
        None, description="x0, y0, x1, y1 in level-0 pixels; default: the whole slide"
    )
    profile: Literal["fast", "accurate"] | None = Field(None, description="one view, or the paper's three")
    model: str | None = Field(None, max_length=200, description="NAME or NAME@VERSION, see /v1/models")
    mpp: float | None = MPP


class SlideModel(BaseModel):
    """The model whose results a slide holds."""

    name: str
    version: str
    sha256: str
    profile: Literal["fast", "accurate"]


class SlideEntry(BaseModel):
    """A slide."""

    id: str = Field(description="32 hexadecimal digits")
    origin: Literal["tiles", "rooted", "upload"]
    path: str | None = Field(description="as it was given, of a slide below the slide root")
    format: str | None = Field(description="aperio, dicom, generic-tiff, png, ...; null if only tiles come")
    width: int
    height: int
    mpp_x: float | None = Field(description="um per pixel of level 0; null if nobody said it")
    mpp_y: float | None
    mpp_source: Literal["request", "file"] | None
    bytes: int = Field(description="of the file")
    model: SlideModel | None = Field(description="whose results it holds; null while there are none")
    created: str
    changed: str


class JobState(BaseModel):
    """A job of a slide."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]


class JobModel(BaseModel):
    """The model of a job."""

    name: str
    version: str
    sha256: str


class JobEntry(JobState):
    """A job as it stands."""

    slide: str
    done: int = Field(description="windows that are analysed and kept")
    total: int = Field(description="windows with tissue; 0 until they are counted")
    rate: float | None = Field(description="windows per second while it runs")
    seconds_left: float | None
    problem: dict[str, Any] | None = Field(description="why it failed, as errors are written")
    region: list[float] = Field(description="x0, y0, x1, y1 in level-0 pixels")
    profile: Literal["fast", "accurate"] | None
    model: JobModel
    created: str
    started: str | None
    finished: str | None


class SlideShown(SlideEntry):
    """A slide with its jobs, newest first."""

    jobs: list[JobState]


class SlideList(BaseModel):
    """A page of slides, newest first."""

    slides: list[SlideEntry]
    next: str | None = Field(description="give it as `after` for the next page; null on the last one")


Responses = dict[int | str, Json]


def answers(status: int, said: Json, *refusals: type[domain.Refusal]) -> Responses:
    """What a route answers when all is well, and otherwise."""
    always = (Unauthenticated, Forbidden, domain.NotReady, domain.Draining, domain.Overloaded, domain.MissingExtra)
    return {status: said} | problems(*(ANSWER[kind] for kind in (*always, *refusals)))


LOCATED: Json = {"headers": {"Location": {"description": "its address", "schema": {"type": "string"}}}}
CREATED = answers(
    201,
    {"model": SlideEntry} | LOCATED,
    *(domain.NotFound, domain.InvalidParameter, domain.InvalidImage, domain.UnsupportedMediaType),
    *(RequestTimeout, domain.PayloadTooLarge, domain.StorageFull),
)
LISTED = answers(200, {"model": SlideList}, domain.NotFound, domain.InvalidParameter)
FOUND = answers(200, {"model": SlideShown}, domain.NotFound, domain.InvalidParameter)
CHANGED = answers(
    *(200, {"model": SlideEntry}, domain.NotFound, domain.InvalidParameter),
    *(RequestTimeout, domain.UnsupportedMediaType, domain.Conflict, domain.PayloadTooLarge),
)
ACCEPTED = answers(
    202,
    {"model": JobEntry} | LOCATED,
    *(domain.NotFound, domain.UnknownModel, RequestTimeout, domain.InvalidParameter, domain.UnsupportedMediaType),
    *(domain.MppRequired, domain.Conflict, domain.InvalidImage, domain.PayloadTooLarge),
)
JOB_FOUND = answers(200, {"model": JobEntry}, domain.NotFound, domain.InvalidParameter)
EVENTS_SENT = answers(
    200,
    {"description": "the job, each time it changes", "content": {"text/event-stream": {}}},
    *(domain.NotFound, domain.InvalidParameter),
)
TILED = answers(
    200,
    {"description": "the nuclei that the tile answers for", "content": {GEOJSON: {"example": COLLECTION_EXAMPLE}}},
    *(kind for kind in ANSWER if kind not in (domain.ViewportTooDense, domain.MppRequired)),
)
GONE = answers(204, {"description": "it is gone"}, domain.NotFound, domain.InvalidParameter)


def json_body(model: type[Asked], required: bool = True) -> Json:
    """The entry for a body of JSON."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": _schema(model)}}}}


def _schema(model: type[Asked]) -> Json:
    return model.model_json_schema()


TILE_BODY: Json = {
    "requestBody": SEGMENT_BODY["requestBody"],
    "x-codeSamples": [
        {"lang": "shell", "source": "curl --data-binary @tile.png -H 'Content-Type: image/png' "
         "'http://127.0.0.1:8000/v1/slides/SLIDE/tiles?x=4096&y=2048&margin=64'"},
    ],
}  # fmt: skip
JOB_BODY = json_body(NewJob, required=False)
SCALE_BODY = json_body(Scale)
SLIDE_BODY: Json = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _schema(NewSlide)},
            OCTETS: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "x-codeSamples": [
        {"lang": "shell", "source": "curl -T slide.svs -X POST -H 'Content-Type: application/octet-stream' "
         "'http://127.0.0.1:8000/v1/slides?filename=slide.svs'"},
        {"lang": "shell", "source": "curl --json '{\"path\": \"case7/slide.ndpi\"}' http://127.0.0.1:8000/v1/slides"},
    ],
}  # fmt: skip
