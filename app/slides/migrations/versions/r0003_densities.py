"""Where the nuclei of each tile lie, in cells; tiles that are there already are counted when they are looked at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    """Make the table."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "densities",
        sa.Column("tile_id", key, autoincrement=False, nullable=False),
        sa.Column("cells", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tile_id"], ["tiles.id"], name="fk_densities_tile_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tile_id", name="pk_densities"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("densities")
