"""Alembic's entry: runs the steps inside of the caller's transaction, so a store is never half moved."""

from __future__ import annotations

from alembic import context

from app.slides.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
