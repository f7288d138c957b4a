"""What goes into the store and what comes out of it, as plain values."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sqlalchemy import Row

from app.nuclei.types import Mpp, Nuclei, Profile, QualityReport, UInt8
from app.slides.places import Box, Place
from app.slides.schema import COUNTS

Origin = Literal["tiles", "rooted", "upload"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """32 hexadecimal digits that nobody guesses."""
    return uuid.uuid4().hex


class ModelKey(NamedTuple):
    """Which model spoke, with which settings: all results on one slide share it.

    Attributes:
        name, version, sha256: of the model and its weights.
        config_sha256: of thresholds, profile, mpp and post-processing, see `app.formats.document`.
        profile: which views were averaged.
    """

    name: str
    version: str
    sha256: str
    config_sha256: str
    profile: Profile


@dataclass(frozen=True, slots=True)
class NewSlide:
    """A slide to be kept.

    Attributes:
        width, height: of level 0.
        mpp: of level 0; None if nobody said it.
        origin: "tiles" (only tiles will come), "rooted" (a file below the slide root), "upload" (a file of ours).
        path: relative to the slide root, or to the slide's own folder; None for "tiles".
        vendor: of the file's format; "dicom" is DICOM.
        file_bytes, file_mtime_ns: of the file as it was registered, to notice that it is another one.
        file_sha256: of an uploaded file.
        owner: who may see it: `key:ID`, or empty for all who call without a key.
    """

    width: int
    height: int
    mpp: Mpp | None
    origin: Origin = "tiles"
    path: str | None = None
    vendor: str | None = None
    file_bytes: int = 0
    file_mtime_ns: int | None = None
    file_sha256: str | None = None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Slide(NewSlide):
    """A slide that is kept.

    Attributes:
        id: 32 hexadecimal digits, not to be guessed.
        model: of its results; None while there are none.
        tile_bytes: that its tiles take.
        created_ms, touched_ms: when it came, and when it was last written to.
    """

    id: str = ""
    model: ModelKey | None = None
    tile_bytes: int = 0
    created_ms: int = 0
    touched_ms: int = 0


@dataclass(frozen=True, slots=True)
class NewTile:
    """One analysed tile or window.

    Attributes:
        place: where it lies on the slide.
        content_sha256: of what was analysed: the bytes received, or a window's pixels.
        model: which model spoke.
        nuclei: all that were found, margin included, relative to the tile's corner, in level-0 pixels.
        step: level-0 pixels per pixel of the model's grid, (x, y): makes the rings compact.
        qc: technical warnings.
        provenance: as written in answers.
        by_job: it is a window of a job; else a caller sent it.
        mpp: of level 0, as the analysis took it; None where nothing is known of that.
    """

    place: Place
    content_sha256: str
    model: ModelKey
    nuclei: Nuclei
    step: tuple[float, float] = (1.0, 1.0)
    qc: QualityReport = field(default_factory=QualityReport)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    by_job: bool = False
    mpp: Mpp | None = None


class Kept(NamedTuple):
    """What became of a tile: its row, and whether it is new (False: the same content was there already)."""

    tile_id: int
    created: bool


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile that is kept, without its nuclei.

    Attributes:
        id: of its row.
        place, content_sha256: as it was sent.
        found: nuclei kept.
        counted: of them, those that this tile answers for.
        cut: of the counted, those that an edge without margin cuts.
        counts: of the counted, per class in the order of the taxonomy.
        qc_verdict, qc_codes: technical warnings.
    """

    id: int
    place: Place
    content_sha256: str
    found: int
    counted: int
    cut: int
    counts: tuple[int, ...]
    qc_verdict: str
    qc_codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TileNuclei:
    """Nuclei of one tile.

    Attributes:
        tile: which one.
        nuclei: in slide pixels; `nuclei.id` are the numbers inside the tile.
        flags: (N,) uint8, see `app.slides.seams`.
        step: level-0 pixels per pixel of the grid on which they were traced, (x, y).
    """

    tile: Tile
    nuclei: Nuclei
    flags: UInt8
    step: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Totals:
    """All tiles of a slide added up.

    Attributes:
        tiles: how many.
        counted, cut: nuclei that count, and of them those cut by an edge without margin.
        counts: per class, in the order of the taxonomy.
        area: level-0 pixels that at least one core covers.
        verdicts, codes: tiles per QC verdict and per QC code.
    """

    tiles: int
    counted: int
    cut: int
    counts: tuple[int, ...]
    area: float
    verdicts: dict[str, int]
    codes: dict[str, int]


def slide_of(row: Row[Any]) -> Slide:
    """A row of `slides`."""
    mpp = None if row.mpp_x is None else Mpp(row.mpp_x, row.mpp_y, row.mpp_source, bool(row.mpp_conflict))
    names = (row.model_name, row.model_version, row.model_sha256, row.config_sha256, row.profile)
    return Slide(
        *(row.width, row.height, mpp, row.origin, row.path, row.vendor, row.file_bytes),
        *(row.file_mtime_ns, row.file_sha256, row.owner),
        *(row.id, None if row.model_sha256 is None else ModelKey(*names)),
        *(row.tile_bytes, row.created_ms, row.touched_ms),
    )


def place_of(row: Row[Any]) -> Place:
    """Where the tile of a row of `tiles` lies."""
    return Place(row.x, row.y, row.width, row.height, Box(row.core_x0, row.core_y0, row.core_x1, row.core_y1))


def tile_of(row: Row[Any]) -> Tile:
    """A row of `tiles`."""
    counts = tuple(getattr(row, name) for name in COUNTS)
    codes = tuple(row.qc_codes.split(",")) if row.qc_codes else ()
    sizes = (row.found, row.counted, row.cut)
    return Tile(row.id, place_of(row), row.content_sha256, *sizes, counts, row.qc_verdict, codes)
