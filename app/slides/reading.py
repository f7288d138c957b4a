"""What does a slide hold in all, and how does an export walk over it without holding it?

Only counted nuclei come out; sums are added up by the database from columns of the tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import shapely
from sqlalchemy import Row, func, select, tuple_

from app.nuclei.errors import NotFound
from app.nuclei.types import Float64, Int64, Nuclei, Rings, UInt8
from app.slides import seams
from app.slides.columns import Packed, step_of, unpack, unpack_table
from app.slides.database import Database
from app.slides.records import Tile, TileNuclei, Totals, tile_of
from app.slides.schema import COUNTS, payloads, slides, tiles

PAGE = 16  # tiles opened at once
_MOST_CELLS = 4_000_000


def walk(database: Database, slide_id: str, with_rings: bool = True) -> Iterator[TileNuclei]:
    """All counted nuclei of a slide, tile by tile in reading order (y, x, number), a few tiles in memory at a time.

    Args:
        database: of the store.
        slide_id: of the slide.
        with_rings: whether rings are needed; without them it is several times faster.

    Raises:
        NotFound: if there is no such slide.
    """
    check_slide(database, slide_id)
    columns = (*tiles.c, payloads.c.flags, payloads.c.nuclei, *([payloads.c.rings] if with_rings else []))
    order = (tiles.c.y, tiles.c.x, tiles.c.id)
    query = select(*columns).join_from(tiles, payloads).where(tiles.c.slide_id == slide_id).order_by(*order).limit(PAGE)
    page = query
    while True:
        with database.read() as connection:  # a transaction a page: a long export must not hold up the writers' log
            rows = connection.execute(page).all()
        yield from (_counted(row, with_rings) for row in rows)
        if len(rows) < PAGE:
            return
        page = query.where(tuple_(*order) > tuple_(rows[-1].y, rows[-1].x, rows[-1].id))


def list_tiles(database: Database, slide_id: str) -> list[Tile]:
    """The tiles of a slide in reading order, without nuclei.

    Raises:
        NotFound: if there is no such slide.
    """
    query = select(tiles).where(tiles.c.slide_id == slide_id).order_by(tiles.c.y, tiles.c.x, tiles.c.id)
    with database.read() as connection:
        rows = connection.execute(query).all()
    if not rows:
        check_slide(database, slide_id)
    return [tile_of(row) for row in rows]


def tile_details(database: Database, tile_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The QC report and the provenance of one tile.

    Raises:
        NotFound: if there is no such tile.
    """
    query = select(payloads.c.qc, payloads.c.provenance).where(payloads.c.tile_id == tile_id)
    with database.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("there is no such tile")
    return row.qc, row.provenance


def first_details(database: Database, slide_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The QC report and the provenance of the first tile of a slide; empty if there is none."""
    query = select(payloads.c.qc, payloads.c.provenance).join_from(tiles, payloads)
    query = query.where(tiles.c.slide_id == slide_id).order_by(tiles.c.y, tiles.c.x, tiles.c.id).limit(1)
    with database.read() as connection:
        row = connection.execute(query).one_or_none()
    return (row.qc, row.provenance) if row is not None else ({}, {})


def tile_nuclei(database: Database, tile_id: int) -> TileNuclei:
    """All nuclei of one tile with their flags, those too that another tile answers for.

    Raises:
        NotFound: if there is no such tile.
    """
    columns = (*tiles.c, payloads.c.flags, payloads.c.nuclei, payloads.c.rings)
    with database.read() as connection:
        row = connection.execute(select(*columns).join_from(tiles, payloads).where(tiles.c.id == tile_id)).one_or_none()
    if row is None:
        raise NotFound("there is no such tile")
    nuclei = unpack(Packed(row.nuclei, row.rings), (row.x, row.y))
    return TileNuclei(tile_of(row), nuclei, flags_of(row.flags), step_of(row.nuclei))


def totals(database: Database, slide_id: str) -> Totals:
    """All tiles of a slide added up; no payload is opened.

    Raises:
        NotFound: if there is no such slide.
    """
    names = ("counted", "cut", *COUNTS)
    here = tiles.c.slide_id == slide_id
    sums = [func.coalesce(func.sum(tiles.c[name]), 0) for name in names]
    cores = (tiles.c.core_x0, tiles.c.core_y0, tiles.c.core_x1, tiles.c.core_y1)
    with database.read() as connection:
        number, *figures = connection.execute(select(func.count(), *sums).where(here)).one()
        boxes = np.array([tuple(row) for row in connection.execute(select(*cores).where(here))], np.float64)
        kinds = select(tiles.c.qc_verdict, tiles.c.qc_codes, func.count()).where(here)
        groups = connection.execute(kinds.group_by(tiles.c.qc_verdict, tiles.c.qc_codes)).all()
    if not number:
        check_slide(database, slide_id)
    counted, cut, *counts = (int(figure) for figure in figures)
    verdicts: dict[str, int] = {}
    codes: dict[str, int] = {}
    for verdict, joined, count in groups:
        verdicts[verdict] = verdicts.get(verdict, 0) + count
        for code in filter(None, joined.split(",")):
            codes[code] = codes.get(code, 0) + count
    return Totals(int(number), counted, cut, tuple(counts), covered(boxes), verdicts, codes)


def covered(boxes: Float64) -> float:
    """Area of the union of (N, 4) boxes."""
    x0, y0, x1, y1 = boxes.reshape(-1, 4).T
    columns, rows = np.unique([x0, x1]), np.unique([y0, y1])
    if len(columns) * len(rows) > _MOST_CELLS:  # tiles at ever new places
        return float(shapely.union_all(shapely.box(x0, y0, x1, y1)).area)
    cells = np.zeros((len(rows), len(columns)), np.bool_)
    ends = (
        np.searchsorted(rows, y0),
        np.searchsorted(rows, y1),
        np.searchsorted(columns, x0),
        np.searchsorted(columns, x1),
    )
    for top, bottom, left, right in zip(*(each.tolist() for each in ends), strict=True):
        cells[top:bottom, left:right] = True
    return float(np.diff(rows, append=0) @ cells @ np.diff(columns, append=0))


def check_slide(database: Database, slide_id: str) -> None:
    """Refuse a slide that does not exist.

    Raises:
        NotFound: if there is none of this id.
    """
    with database.read() as connection:
        if connection.execute(select(slides.c.id).where(slides.c.id == slide_id)).one_or_none() is None:
            raise NotFound("there is no slide of this id")


def _counted(row: Row[Any], with_rings: bool) -> TileNuclei:
    at = (row.x, row.y)
    nuclei = unpack(Packed(row.nuclei, row.rings), at) if with_rings else unpack_table(row.nuclei, at)
    flags = flags_of(row.flags)
    index = np.flatnonzero((flags & seams.ELSEWHERE) == 0)
    return TileNuclei(tile_of(row), chosen(nuclei, index), flags[index], step_of(row.nuclei))


def flags_of(flags: bytes) -> UInt8:
    """(N,) flags of a payload."""
    return np.frombuffer(flags, np.uint8)


def chosen(nuclei: Nuclei, index: Int64) -> Nuclei:
    """Some nuclei of a table, in the order of `index`; their ids stay. A table without rings stays so."""
    if len(index) == len(nuclei) and np.array_equal(index, np.arange(len(index))):
        return nuclei
    rings = _chosen_rings(nuclei.rings, index) if len(nuclei.rings) else nuclei.rings
    columns = {each.name: getattr(nuclei, each.name)[index] for each in fields(nuclei) if each.name != "rings"}
    return Nuclei(**columns, rings=rings)


def _chosen_rings(rings: Rings, index: Int64) -> Rings:
    lengths = np.diff(rings.offsets)[index]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return Rings(rings.points[np.repeat(rings.offsets[:-1][index], lengths) + within], offsets)
