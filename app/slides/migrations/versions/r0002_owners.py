"""Whose a slide is, and which tiles are windows of a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Add the columns; slides that are there belong to callers without a key, tiles were sent."""
    op.add_column("slides", sa.Column("owner", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_slides_owner", "slides", ["owner", "created_ms", "id"], unique=False)
    op.add_column("tiles", sa.Column("by_job", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("tiles", "by_job")
    op.drop_index("ix_slides_owner", table_name="slides")
    op.drop_column("slides", "owner")
