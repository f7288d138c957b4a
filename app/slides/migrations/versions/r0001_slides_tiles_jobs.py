"""Slides, tiles, their payloads, and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "slides",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("origin", sa.String(length=8), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("file_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("file_sha256", sa.String(length=64), nullable=True),
        sa.Column("vendor", sa.Text(), nullable=True),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("mpp_x", sa.Double(), nullable=True),
        sa.Column("mpp_y", sa.Double(), nullable=True),
        sa.Column("mpp_source", sa.String(length=16), nullable=True),
        sa.Column("mpp_conflict", sa.Boolean(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=True),
        sa.Column("model_version", sa.Text(), nullable=True),
        sa.Column("model_sha256", sa.String(length=64), nullable=True),
        sa.Column("config_sha256", sa.String(length=64), nullable=True),
        sa.Column("profile", sa.String(length=16), nullable=True),
        sa.Column("tile_bytes", sa.BigInteger(), nullable=False),
        sa.Column("tallest", sa.Double(), nullable=False),
        sa.Column("reach", sa.Double(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("touched_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slides")),
    )
    op.create_index(op.f("ix_slides_created_ms"), "slides", ["created_ms"], unique=False)
    op.create_index(op.f("ix_slides_touched_ms"), "slides", ["touched_ms"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("slide_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("x0", sa.Double(), nullable=False),
        sa.Column("y0", sa.Double(), nullable=False),
        sa.Column("x1", sa.Double(), nullable=False),
        sa.Column("y1", sa.Double(), nullable=False),
        sa.Column("profile", sa.String(length=16), nullable=True),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("mpp_x", sa.Double(), nullable=False),
        sa.Column("mpp_y", sa.Double(), nullable=False),
        sa.Column("mpp_source", sa.String(length=16), nullable=False),
        sa.Column("mpp_conflict", sa.Boolean(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("problem", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=True),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["slide_id"], ["slides.id"], name=op.f("fk_jobs_slide_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_slide_id"), "jobs", ["slide_id"], unique=False)
    op.create_index("ix_jobs_waiting", "jobs", ["state", "created_ms"], unique=False)
    op.create_table(
        "tiles",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("slide_id", sa.String(length=32), nullable=False),
        sa.Column("x", sa.Double(), nullable=False),
        sa.Column("y", sa.Double(), nullable=False),
        sa.Column("width", sa.Double(), nullable=False),
        sa.Column("height", sa.Double(), nullable=False),
        sa.Column("core_x0", sa.Double(), nullable=False),
        sa.Column("core_y0", sa.Double(), nullable=False),
        sa.Column("core_x1", sa.Double(), nullable=False),
        sa.Column("core_y1", sa.Double(), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("config_sha256", sa.String(length=64), nullable=False),
        sa.Column("nx0", sa.Double(), nullable=True),
        sa.Column("ny0", sa.Double(), nullable=True),
        sa.Column("nx1", sa.Double(), nullable=True),
        sa.Column("ny1", sa.Double(), nullable=True),
        sa.Column("found", sa.Integer(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("cut", sa.Integer(), nullable=False),
        sa.Column("n_open", sa.Integer(), nullable=False),
        sa.Column("n_neutrophil", sa.Integer(), nullable=False),
        sa.Column("n_epithelial", sa.Integer(), nullable=False),
        sa.Column("n_lymphocyte", sa.Integer(), nullable=False),
        sa.Column("n_plasma", sa.Integer(), nullable=False),
        sa.Column("n_eosinophil", sa.Integer(), nullable=False),
        sa.Column("n_connective", sa.Integer(), nullable=False),
        sa.Column("qc_verdict", sa.String(length=4), nullable=False),
        sa.Column("qc_codes", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["slide_id"], ["slides.id"], name=op.f("fk_tiles_slide_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tiles")),
        sa.UniqueConstraint(
            "slide_id", "x", "y", "width", "height", "content_sha256", "model_sha256", "config_sha256", name="uq_tiles"
        ),
    )
    op.create_index("ix_tiles_nuclei", "tiles", ["slide_id", "ny0", "ny1", "nx0", "nx1"], unique=False)
    op.create_index("ix_tiles_place", "tiles", ["slide_id", "y", "x", "id"], unique=False)
    op.create_table(
        "payloads",
        sa.Column("tile_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("flags", sa.LargeBinary(), nullable=False),
        sa.Column("qc", sa.JSON(), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("nuclei", sa.LargeBinary(), nullable=False),
        sa.Column("rings", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tile_id"], ["tiles.id"], name=op.f("fk_payloads_tile_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tile_id", name=op.f("pk_payloads")),
    )


def downgrade() -> None:
    """Drop them with all that they hold."""
    op.drop_table("payloads")
    op.drop_index("ix_tiles_place", table_name="tiles")
    op.drop_index("ix_tiles_nuclei", table_name="tiles")
    op.drop_table("tiles")
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    op.drop_index(op.f("ix_jobs_slide_id"), table_name="jobs")
    op.drop_table("jobs")
    op.drop_index(op.f("ix_slides_touched_ms"), table_name="slides")
    op.drop_index(op.f("ix_slides_created_ms"), table_name="slides")
    op.drop_table("slides")
