"""What is kept of slides, tiles and jobs, as tables?

The same on SQLite and PostgreSQL. A tile is the unit: a narrow row to find and to sum by, and a payload row with its
nuclei. Counts stand in columns of the tile, so that no summary opens a payload. Times are milliseconds since 1970, UTC.
Changes go through `migrations/`; a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from app.nuclei.taxonomy import NAMES

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself only in an INTEGER key
COUNTS: Final = tuple(f"n_{name}" for name in NAMES)
"""Columns of `tiles` with the counted nuclei of each class, in the order of the taxonomy."""


def _slide_key(**how: Any) -> Column[str]:
    return Column("slide_id", String(32), ForeignKey("slides.id", ondelete="CASCADE"), nullable=False, **how)


slides = Table(
    "slides",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", Text, nullable=False, server_default=""),  # who sees it; empty: all callers without a key
    Column("origin", String(8), nullable=False),  # tiles | rooted | upload
    Column("path", Text),  # below the slide root, or inside the slide's own folder
    Column("file_bytes", BigInteger, nullable=False),
    Column("file_mtime_ns", BigInteger),
    Column("file_sha256", String(64)),  # of an upload
    Column("vendor", Text),
    Column("width", BigInteger, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("mpp_x", Double),
    Column("mpp_y", Double),
    Column("mpp_source", String(16)),
    Column("mpp_conflict", Boolean, nullable=False),
    Column("model_name", Text),  # the one model of this slide, set by its first tile
    Column("model_version", Text),
    Column("model_sha256", String(64)),
    Column("config_sha256", String(64)),
    Column("profile", String(16)),
    Column("tile_bytes", BigInteger, nullable=False),
    Column("tallest", Double, nullable=False),  # height of the tallest tile: bounds the search for neighbours
    Column("reach", Double, nullable=False),  # same of the boxes around a tile's nuclei: bounds that of a viewport
    Column("created_ms", BigInteger, nullable=False, index=True),
    Column("touched_ms", BigInteger, nullable=False, index=True),
    Index("ix_slides_owner", "owner", "created_ms", "id"),
)

tiles = Table(
    "tiles",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    _slide_key(),
    *(Column(name, Double, nullable=False) for name in ("x", "y", "width", "height")),
    *(Column(name, Double, nullable=False) for name in ("core_x0", "core_y0", "core_x1", "core_y1")),
    Column("content_sha256", String(64), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("config_sha256", String(64), nullable=False),
    *(Column(name, Double) for name in ("nx0", "ny0", "nx1", "ny1")),  # box of its nuclei; null if there are none
    Column("found", Integer, nullable=False),  # nuclei kept, also those that another tile answers for
    Column("counted", Integer, nullable=False),
    Column("cut", Integer, nullable=False),  # of the counted
    Column("n_open", Integer, nullable=False),  # of the counted, those whose class stayed open
    *(Column(name, Integer, nullable=False) for name in COUNTS),
    Column("qc_verdict", String(4), nullable=False),
    Column("qc_codes", Text, nullable=False),  # joined by commas
    Column("bytes", BigInteger, nullable=False),
    Column("by_job", Boolean, nullable=False, server_default=false()),  # a window of a job; else a caller sent it
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint(
        "slide_id", "x", "y", "width", "height", "content_sha256", "model_sha256", "config_sha256", name="uq_tiles"
    ),
    Index("ix_tiles_nuclei", "slide_id", "ny0", "ny1", "nx0", "nx1"),
    Index("ix_tiles_place", "slide_id", "y", "x", "id"),
)

payloads = Table(
    "payloads",
    metadata,
    Column("tile_id", RowId, ForeignKey("tiles.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("flags", LargeBinary, nullable=False),  # a byte a nucleus, see `seams`
    Column("qc", JSON, nullable=False),
    Column("provenance", JSON, nullable=False),
    Column("nuclei", LargeBinary, nullable=False),  # `columns.Packed.table`
    Column("rings", LargeBinary, nullable=False),  # last, so that SQLite need not read it to reach the others
)

densities = Table(
    "densities",
    metadata,
    Column("tile_id", RowId, ForeignKey("tiles.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("cells", LargeBinary, nullable=False),  # of the counted nuclei, see `density`
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    _slide_key(index=True),
    Column("state", String(9), nullable=False),  # queued | running | done | failed | cancelled
    *(Column(name, Double, nullable=False) for name in ("x0", "y0", "x1", "y1")),
    Column("profile", String(16)),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("mpp_x", Double, nullable=False),
    Column("mpp_y", Double, nullable=False),
    Column("mpp_source", String(16), nullable=False),
    Column("mpp_conflict", Boolean, nullable=False),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("problem", JSON(none_as_null=True)),
    Column("worker", Text),  # who runs it, and until when it may be silent before another takes over
    Column("lease_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("updated_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),  # since it last got a window further
    Index("ix_jobs_waiting", "state", "created_ms"),
)

turns = Table(
    "turns",
    metadata,
    Column("owner", Text, primary_key=True),  # of slides; stays when they are deleted
    Column("began_ms", BigInteger, nullable=False),  # when a job of theirs was taken last
)
