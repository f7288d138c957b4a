"""What is in view, and how dense is it?

Only counted nuclei come out. A viewport opens the payloads of the tiles that it meets and of no others, and not those
that were opened lately; a density opens none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, and_, select

from app.nuclei.errors import NotFound, ViewportTooDense
from app.nuclei.types import Int64, Nuclei
from app.slides import seams
from app.slides.columns import Packed, step_of, unpack, unpack_table
from app.slides.database import Database
from app.slides.density import Cells, add_up
from app.slides.places import Box
from app.slides.reading import PAGE, chosen, flags_of
from app.slides.recent import Recent
from app.slides.records import TileNuclei, tile_of
from app.slides.schema import COUNTS, densities, payloads, slides, tiles
from app.slides.settling import spread

Decoded = tuple[Nuclei, tuple[float, float]]
"""All nuclei of a tile in slide pixels, and the step of the grid on which they were traced: these never change."""


def viewport(
    database: Database,
    slide_id: str,
    box: Box,
    limit: int | None,
    classes: Collection[int] | None = None,
    recent: Recent[Decoded] | None = None,
) -> list[TileNuclei]:
    """The nuclei whose box meets a viewport, unclipped, by tile in reading order.

    Args:
        database: of the store.
        slide_id: of the slide.
        box: of the viewport, level-0 pixels.
        limit: most nuclei that are sent at once; None for all.
        classes: ids of the classes wanted; all, the open one (0) too, if None.
        recent: tiles that were opened lately.

    Returns:
        Tiles with at least one nucleus in view, each with those in view.

    Raises:
        NotFound: if there is no such slide.
        ViewportTooDense: if there are more than `limit`; it says how many there are at least.
    """
    with database.read() as connection:
        rows = _tiles_in(connection, slide_id, box)
        surely = sum(_wanted(row, classes) for row in rows if box.holds(Box(row.nx0, row.ny0, row.nx1, row.ny1)))
        _check_density(surely, limit)
        hopeful = [row for row in rows if _wanted(row, classes)]
        found, total = [], 0
        for first in range(0, len(hopeful), PAGE):
            for seen in _in_view(connection, hopeful[first : first + PAGE], box, classes, recent):
                total += len(seen.nuclei)
                _check_density(total, limit)
                if len(seen.nuclei):
                    found.append(seen)
    return found


def density(database: Database, slide_id: str, cells: Cells) -> Int64:
    """(1 + classes, height, width) int64: nuclei that count in each cell of a box, first those of no class.

    Args:
        database: of the store.
        slide_id: of the slide.
        cells: may lie outside of the slide, where there is nothing.
    """
    columns = (tiles.c.id, tiles.c.x, tiles.c.y, densities.c.cells)
    query = select(*columns).outerjoin_from(tiles, densities).where(_meeting(slide_id, cells.box))
    with database.read() as connection:
        rows = connection.execute(query).all()
        before = {row.id: row for row in rows if row.cells is None}  # kept before there were densities
        found = connection.execute(
            select(payloads.c.tile_id, payloads.c.flags, payloads.c.nuclei).where(payloads.c.tile_id.in_(before))
        )
        late = [spread(unpack_table(each.nuclei, before[each.tile_id][1:3]), flags_of(each.flags)) for each in found]
    return add_up([*(row.cells for row in rows if row.cells is not None), *late], cells)


def _meeting(slide_id: str, box: Box) -> ColumnElement[bool]:
    """Tiles of which a nucleus may lie in a box."""
    reach = select(slides.c.reach).where(slides.c.id == slide_id).scalar_subquery()
    return and_(
        tiles.c.slide_id == slide_id,
        tiles.c.ny0.between(box.y0 - reach, box.y1),
        tiles.c.ny1 >= box.y0,
        tiles.c.nx0 <= box.x1,
        tiles.c.nx1 >= box.x0,
    )


def _tiles_in(connection: Connection, slide_id: str, box: Box) -> list[Row[Any]]:
    meets = _meeting(slide_id, box)
    found = connection.execute(select(tiles).where(meets).order_by(tiles.c.y, tiles.c.x, tiles.c.id)).all()
    if not found and connection.execute(select(slides.c.id).where(slides.c.id == slide_id)).first() is None:
        raise NotFound("there is no slide of this id")
    return list(found)


def _wanted(row: Row[Any], classes: Collection[int] | None) -> int:
    if classes is None:
        return int(row.counted)
    per_class = [row.n_open, *(getattr(row, name) for name in COUNTS)]
    return sum(int(per_class[kind]) for kind in set(classes) if 0 <= kind < len(per_class))


def _check_density(count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        raise ViewportTooDense(
            f"the viewport holds at least {count} nuclei, {limit} are sent at once: zoom in, or take the overlay",
            limit,
            count,
        )


def _in_view(
    connection: Connection,
    rows: Sequence[Row[Any]],
    box: Box,
    classes: Collection[int] | None,
    recent: Recent[Decoded] | None,
) -> Iterator[TileNuclei]:
    of_rows = payloads.c.tile_id.in_([row.id for row in rows])
    found = connection.execute(select(payloads.c.tile_id, payloads.c.flags).where(of_rows))
    flags = {each.tile_id: flags_of(each.flags) for each in found}
    for row, (nuclei, step) in zip(rows, _decoded(connection, rows, recent), strict=True):
        own = flags[row.id]
        x0, y0, x1, y1 = nuclei.bbox.T
        here = (x0 < box.x1) & (x1 > box.x0) & (y0 < box.y1) & (y1 > box.y0) & ((own & seams.ELSEWHERE) == 0)
        if classes is not None:
            here &= np.isin(nuclei.type, list(classes))
        index = np.flatnonzero(here)
        yield TileNuclei(tile_of(row), chosen(nuclei, index), own[index], step)


def _decoded(connection: Connection, rows: Sequence[Row[Any]], recent: Recent[Decoded] | None) -> list[Decoded]:
    """The nuclei of some tiles of one slide, opened unless they were lately."""
    recent = recent if recent is not None else Recent(0)
    # The id of a deleted tile may be given again, but never together with its slide's.
    found = {row.id: opened for row in rows if (opened := recent.get((row.slide_id, row.id))) is not None}
    if missing := [row for row in rows if row.id not in found]:
        query = select(payloads.c.tile_id, payloads.c.nuclei, payloads.c.rings)
        pieces = connection.execute(query.where(payloads.c.tile_id.in_([row.id for row in missing])))
        packed = {each.tile_id: Packed(each.nuclei, each.rings) for each in pieces}
        for row in missing:
            nuclei = unpack(packed[row.id], (row.x, row.y))
            found[row.id] = nuclei, step_of(packed[row.id].rings)
            recent.put((row.slide_id, row.id), found[row.id], _size(nuclei))
    return [found[row.id] for row in rows]


def _size(nuclei: Nuclei) -> int:
    columns = [getattr(nuclei, each.name).nbytes for each in fields(nuclei) if each.name != "rings"]
    return int(sum(columns)) + nuclei.rings.points.nbytes + nuclei.rings.offsets.nbytes
