"""What is a slide, or a region of it, made of, and how sure is that?

Nuclei of one kind lie together, so they are no independent draws: an interval that takes them for such is too narrow.
The windows in which the slide was analysed are taken as clusters. The variance of a share over windows (the ratio
estimator's; Cochran 1977, 6.4), over that of independent draws, is the design effect; the number of nuclei divided by
it, where it is above 1, goes into Wilson's interval (Korn and Graubard 1998). With one window alone the nuclei are
taken as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from sqlalchemy import Connection, Row, select

from app.formats.document import wilson
from app.nuclei.errors import InvalidParameter
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Float64, Int64
from app.slides import seams
from app.slides.columns import unpack_table
from app.slides.database import Database
from app.slides.places import Box
from app.slides.reading import check_slide, covered, flags_of
from app.slides.schema import COUNTS, payloads, tiles

PAGE = 64  # tiles opened at once
RARE = 0.05
"""Share of windows with tissue that must bear a verdict before the slide does."""
_COLUMNS = (
    *(tiles.c.id, tiles.c.x, tiles.c.y, tiles.c.counted, tiles.c.n_open, tiles.c.qc_verdict, tiles.c.qc_codes),
    *(tiles.c.core_x0, tiles.c.core_y0, tiles.c.core_x1, tiles.c.core_y1),
    *(tiles.c.nx0, tiles.c.ny0, tiles.c.nx1, tiles.c.ny1),
    *(tiles.c[name] for name in COUNTS),
)


@dataclass(frozen=True)
class Region:
    """A part of a slide: a polygon, half-open where it is a box, so that boxes side by side share no nucleus.

    Attributes:
        shape: in level-0 pixels.
        box: the same, if it is a box.
    """

    shape: shapely.Polygon
    box: Box | None = None

    @classmethod
    def of(cls, numbers: Sequence[float], name: str = "region") -> Region:
        """From x0, y0, x1, y1 of a box, or x, y of three or more corners.

        Raises:
            InvalidParameter: if that is no area.
        """
        if len(numbers) == 4:
            box = Box(*numbers)
            if not (box.x0 < box.x1 and box.y0 < box.y1):
                raise InvalidParameter(name, f"{name} is empty: x0 lies before x1, and y0 before y1")
            return cls(shapely.box(*box), box)
        if len(numbers) < 6 or len(numbers) % 2:
            raise InvalidParameter(name, f"{name} is x0,y0,x1,y1 of a box, or x,y of each corner of a polygon")
        shape = shapely.Polygon(np.reshape(numbers, (-1, 2)))
        if not shape.is_valid or shape.area == 0:
            raise InvalidParameter(name, f"{name} is no polygon: its border crosses itself, or it has no area")
        return cls(shape)

    @property
    def bounds(self) -> Box:
        """The smallest box around it."""
        return Box(*self.shape.bounds)

    def holds(self, points: Float64) -> np.ndarray:
        """(N,) bool, which of (N, 2) points lie inside."""
        if self.box is not None:
            return np.asarray(((points >= self.box[:2]) & (points < self.box[2:])).all(axis=1))
        return np.asarray(shapely.contains_xy(self.shape, points))

    def area(self, boxes: Float64) -> float:
        """Pixels of the region that (N, 4) boxes cover."""
        if self.box is not None:
            low, high = np.maximum(boxes[:, :2], self.box[:2]), np.minimum(boxes[:, 2:], self.box[2:])
            kept = (low < high).all(axis=1)
            return covered(np.hstack([low, high])[kept])
        pieces = shapely.box(*boxes.T)
        return float(shapely.union_all(pieces[shapely.intersects(pieces, self.shape)]).intersection(self.shape).area)


@dataclass(frozen=True, slots=True)
class Composition:
    """What was counted.

    Attributes:
        counts: (T, 1 + classes) int64, counted nuclei of each window, first those of no class.
        area: level-0 pixels that were analysed.
        verdicts: windows per QC verdict.
        codes: windows per QC code.
        verdict: the worst that at least `RARE` of the windows with tissue bear; of all if none has tissue.
    """

    counts: Int64
    area: float
    verdicts: dict[str, int]
    codes: dict[str, int]
    verdict: str

    @property
    def total(self) -> int:
        """All nuclei."""
        return int(self.counts.sum())

    @property
    def per_class(self) -> dict[str, int]:
        """Nuclei of each class, zeros included."""
        return dict(zip(NAMES, self.counts[:, 1:].sum(axis=0).tolist(), strict=True))

    @property
    def windows(self) -> int:
        """Windows that hold a nucleus."""
        return int((self.counts.sum(axis=1) > 0).sum())

    def share(self, name: str) -> dict[str, float] | None:
        """Share of a class among all nuclei with its 95 % interval, 4 decimals; None without nuclei."""
        if not self.total:
            return None
        part = self.counts[:, 1 + NAMES.index(name)]
        low, high = interval(part, self.counts.sum(axis=1))
        figures = {"value": float(part.sum() / self.total), "low": low, "high": high}
        return {key: round(figure, 4) for key, figure in figures.items()}


def interval(part: Int64, whole: Int64) -> tuple[float, float]:
    """95 % interval of a share of things that come in clusters.

    Args:
        part, whole: (T,) how many of the things of each cluster are meant, and how many there are; some are.
    """
    part, whole = part[whole > 0], whole[whole > 0]
    n, clusters = int(whole.sum()), len(whole)
    share = part.sum() / n
    independent = share * (1 - share) / n
    effect = 1.0
    if clusters > 1 and independent > 0:
        spread = clusters / (clusters - 1) * ((part - share * whole) ** 2).sum() / n**2
        effect = max(1.0, float(spread / independent))
    worth = max(1.0, n / effect)
    return wilson(float(share * worth), worth)


def composition(database: Database, slide_id: str, region: Region | None = None) -> Composition:
    """Count the nuclei of a slide or of a region of it, by centroid.

    Only windows that the region's border crosses are opened.

    Raises:
        NotFound: if there is no such slide.
    """
    with database.read() as connection:
        rows = connection.execute(select(*_COLUMNS).where(tiles.c.slide_id == slide_id).order_by(tiles.c.id)).all()
        if region is not None:
            rows = [row for row in rows if _core(row).meets(region.bounds) or _holds_some(row, region.bounds)]
        counts = np.array([(row.n_open, *row[-len(COUNTS) :]) for row in rows], np.int64).reshape(-1, 1 + len(COUNTS))
        if region is not None:
            _recount(connection, rows, region, counts)
    if not rows:
        check_slide(database, slide_id)
    cores = np.array([_core(row) for row in rows], np.float64).reshape(-1, 4)
    area = covered(cores) if region is None else region.area(cores)
    verdicts, codes = _tally(row.qc_verdict for row in rows), _tally(c for row in rows for c in _codes(row))
    return Composition(counts, area, verdicts, codes, _verdict(rows))


def _recount(connection: Connection, rows: Sequence[Row[Any]], region: Region, counts: Int64) -> None:
    """Of windows that are not wholly inside, only what is."""
    crossed = [i for i, row in enumerate(rows) if row.nx0 is not None and not _wholly_inside(row, region)]
    for first in range(0, len(crossed), PAGE):
        at = {rows[i].id: i for i in crossed[first : first + PAGE]}
        query = select(payloads.c.tile_id, payloads.c.flags, payloads.c.nuclei).where(payloads.c.tile_id.in_(at))
        for each in connection.execute(query):
            row = rows[at[each.tile_id]]
            nuclei = unpack_table(each.nuclei, (row.x, row.y))
            here = ((flags_of(each.flags) & seams.ELSEWHERE) == 0) & region.holds(nuclei.centroid)
            counts[at[each.tile_id]] = np.bincount(nuclei.type[here], minlength=counts.shape[1])


def _core(row: Row[Any]) -> Box:
    return Box(row.core_x0, row.core_y0, row.core_x1, row.core_y1)


def _holds_some(row: Row[Any], bounds: Box) -> bool:
    return row.nx0 is not None and Box(row.nx0, row.ny0, row.nx1, row.ny1).meets(bounds)


def _wholly_inside(row: Row[Any], region: Region) -> bool:
    own = Box(row.nx0, row.ny0, row.nx1, row.ny1)
    return region.box.holds(own) if region.box is not None else bool(region.shape.contains(shapely.box(*own)))


def _codes(row: Row[Any]) -> list[str]:
    return [code for code in row.qc_codes.split(",") if code]


def _tally(found: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in found:
        counts[each] = counts.get(each, 0) + 1
    return dict(sorted(counts.items()))


def _verdict(rows: Sequence[Row[Any]]) -> str:
    with_tissue = [row for row in rows if "no_tissue" not in _codes(row)] or list(rows)
    for verdicts in (("fail",), ("fail", "warn")):
        if sum(row.qc_verdict in verdicts for row in with_tissue) >= max(1.0, RARE * len(with_tissue)):
            return verdicts[-1]
    return "pass"
