"""How are tiles that touch settled with each other inside of a transaction?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, and_, bindparam, select, update

from app.nuclei.errors import Conflict
from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Nuclei, UInt8
from app.slides import seams
from app.slides.columns import unpack_table
from app.slides.density import pack_density
from app.slides.places import Box
from app.slides.records import Slide, place_of
from app.slides.schema import COUNTS, densities, payloads, slides, tiles

MOST_NEIGHBOURS = 1000  # tiles that may crowd one place; each new one is settled with all of them


def counted(kinds: UInt8, flags: UInt8) -> dict[str, int]:
    """The count columns of a tile.

    Args:
        kinds: (N,) class of each nucleus.
        flags: (N,) see `seams`.
    """
    counts = (flags & seams.ELSEWHERE) == 0
    per_class = np.bincount(kinds[counts], minlength=len(CLASSES) + 1).tolist()
    cut = int((counts & ((flags & seams.CUT) > 0)).sum())
    return {"counted": int(counts.sum()), "cut": cut, "n_open": per_class[0]} | dict(
        zip(COUNTS, per_class[1:], strict=True)
    )


def spread(nuclei: Nuclei, flags: UInt8) -> bytes:
    """Where the nuclei of a tile lie that count, see `density`."""
    counts = (flags & seams.ELSEWHERE) == 0
    return pack_density(nuclei.centroid[counts], nuclei.type[counts])


def settle_around(connection: Connection, slide: Slide, core: Box) -> None:
    """Decide anew which nuclei count around a tile that came, and write what changed.

    Args:
        connection: that inserted the tile and holds the slide's lock.
        slide: as it was locked.
        core: of the tile.

    Raises:
        Conflict: if more than `MOST_NEIGHBOURS` tiles lie there.
    """
    rows = _neighbours(connection, slide.id, core.grown(seams.NEAR))
    if len(rows) < 2:
        return
    if len(rows) > MOST_NEIGHBOURS:
        raise Conflict(f"more than {MOST_NEIGHBOURS} tiles crowd this place")
    nuclei = [unpack_table(row.nuclei, (row.x, row.y)) for row in rows]
    before = [np.frombuffer(row.flags, np.uint8) for row in rows]
    seen = [
        seams.Seen.of(place_of(row), _key(row), each, flags)
        for row, each, flags in zip(rows, nuclei, before, strict=True)
    ]
    after = seams.settle(seen, core, (slide.width, slide.height))
    changed = [i for i in range(len(rows)) if not np.array_equal(before[i], after[i])]
    _rewrite(connection, [(rows[i].id, nuclei[i], after[i]) for i in changed])


def _neighbours(connection: Connection, slide_id: str, around: Box) -> Sequence[Row[Any]]:
    tallest = select(slides.c.tallest).where(slides.c.id == slide_id).scalar_subquery()
    meets = and_(
        tiles.c.slide_id == slide_id,
        tiles.c.y.between(around.y0 - tallest, around.y1),
        tiles.c.y + tiles.c.height >= around.y0,
        tiles.c.x <= around.x1,
        tiles.c.x + tiles.c.width >= around.x0,
    )
    columns = (*tiles.c, payloads.c.flags, payloads.c.nuclei)
    query = select(*columns).join_from(tiles, payloads).where(meets).order_by(tiles.c.id).limit(MOST_NEIGHBOURS + 1)
    return connection.execute(query).all()


def _key(row: Row[Any]) -> seams.Key:
    return row.y, row.x, row.height, row.width, row.content_sha256


def _rewrite(connection: Connection, changed: Sequence[tuple[int, Nuclei, UInt8]]) -> None:
    if not changed:
        return
    flags: list[Mapping[str, Any]] = [{"of": tile_id, "flags": each.tobytes()} for tile_id, _, each in changed]
    connection.execute(update(payloads).where(payloads.c.tile_id == bindparam("of")), flags)
    counts: list[Mapping[str, Any]] = [{"of": tile_id} | counted(own.type, each) for tile_id, own, each in changed]
    connection.execute(update(tiles).where(tiles.c.id == bindparam("of")), counts)
    cells: list[Mapping[str, Any]] = [{"of": tile_id, "cells": spread(own, each)} for tile_id, own, each in changed]
    connection.execute(update(densities).where(densities.c.tile_id == bindparam("of")), cells)
