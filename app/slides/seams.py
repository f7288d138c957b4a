"""Which nuclei of overlapping or abutting tiles count, so that each nucleus of the slide counts once?

The answer depends on the set of tiles alone, never on the order in which they came.

Position decides first. Of the tiles whose core holds a point, the one that sees the point deepest inside owns it, as
there the network saw most around it; a tile's nuclei whose centroid it owns are its own. Then pairs are looked for that
are one nucleus seen by two tiles: boxes that cover each other by half along both axes, or halves of a nucleus that two
tiles without margin cut between them. Of a pair owned twice one counts (uncut before cut, then the larger); of a pair
that each tile leaves to the other one counts as well, so nothing falls into the gap, unless a third tile owns the same
nucleus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from app.nuclei.types import Float64, Int64, Nuclei, UInt8
from app.slides.places import Box, Place

CUT_ACROSS, CUT_DOWN = np.uint8(1), np.uint8(2)
"""Flags: the nucleus touches its tile's left or right (upper or lower) edge, and that is no border of the slide."""
CUT = CUT_ACROSS | CUT_DOWN
"""Mask: a part of the nucleus may be missing."""
ELSEWHERE = np.uint8(4)
"""Flag: another tile answers for this nucleus (or for this place); it does not count."""
NEAR = 512.0
"""Level-0 pixels beyond which tiles do not concern each other; far more than a nucleus measures."""
TOUCH = 0.5
"""Level-0 pixels within which a nucleus touches an edge."""

Key = tuple[float, float, float, float, str]
"""y, x, height, width and content digest of a tile: the same whenever it is sent."""

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the seams need to know of one tile.

    Attributes:
        place: where the tile lies.
        key: decides ties between tiles.
        centroid, bbox, area: columns of its nuclei on the slide, as in `Nuclei`.
        flags: (N,) uint8, as settled so far.
    """

    place: Place
    key: Key
    centroid: Float64
    bbox: Float64
    area: Float64
    flags: UInt8

    @classmethod
    def of(cls, place: Place, key: Key, nuclei: Nuclei, flags: UInt8) -> Seen:
        """From nuclei in slide pixels."""
        return cls(place, key, nuclei.centroid, nuclei.bbox, nuclei.area, flags)


def alone(place: Place, nuclei: Nuclei, slide: tuple[int, int]) -> UInt8:
    """Flags of the nuclei of a tile that has no neighbours.

    Args:
        place: of the tile.
        nuclei: of it, in slide pixels.
        slide: width and height of the slide.

    Returns:
        (N,) uint8: CUT_ACROSS, CUT_DOWN where a nucleus touches edges of the tile inside the slide, ELSEWHERE where
        its centroid lies in the margin.
    """
    inner = _inner_edges(place, slide)
    cut = (nuclei.bbox[:, :2] <= inner[:2] + TOUCH) | (nuclei.bbox[:, 2:] >= inner[2:] - TOUCH)
    return cut[:, 0] * CUT_ACROSS | cut[:, 1] * CUT_DOWN | ~_inside(nuclei.centroid, place.core) * ELSEWHERE


def settle(tiles: Sequence[Seen], around: Box, slide: tuple[int, int]) -> list[UInt8]:
    """Flags of all tiles after one of them came or changed.

    Args:
        tiles: every tile of the slide that meets `around` grown by `NEAR`.
        around: core of the tile that came.
        slide: width and height of the slide.

    Returns:
        New flags, in the order of `tiles`; nuclei further from `around` than half of `NEAR` keep theirs.
    """
    known = _Known.of(tiles, around)
    owner = _owners(known.centroid, tiles, slide)
    own = owner == known.tile
    owned, left = np.flatnonzero(own), np.flatnonzero(~own)
    counts = own.copy()
    counts[_second_best(known, owned)] = False
    one, other = _pairs(known, left, left)  # each tile left it to the other, by a hair
    gap = (owner[one] == known.tile[other]) & (owner[other] == known.tile[one])
    spoken_for = np.unique(_pairs(known, np.unique((one[gap], other[gap])), owned)[0])
    gap &= ~np.isin(one, spoken_for) & ~np.isin(other, spoken_for)
    found = np.unique(_ranked(known, one[gap], other[gap])[0])
    counts[found] = True
    counts[_second_best(known, found)] = False
    return known.written(tiles, counts, around)


@dataclass(frozen=True, slots=True)
class _Known:
    """The nuclei near a seam, of all tiles together; `rank` orders them, the best is 0."""

    tile: Int64
    index: Int64
    centroid: Float64
    bbox: Float64
    cut: UInt8
    rank: Int64

    @classmethod
    def of(cls, tiles: Sequence[Seen], around: Box) -> _Known:
        near = [np.flatnonzero(_inside(tile.centroid, around.grown(NEAR))) for tile in tiles]
        tile = np.repeat(np.arange(len(tiles)), [len(each) for each in near])
        index = np.concatenate(near)
        pairs = list(zip(tiles, near, strict=True))
        cut = np.concatenate([t.flags[i] & CUT for t, i in pairs])
        area = np.concatenate([t.area[i] for t, i in pairs])
        order_of_tile = np.argsort(sorted(range(len(tiles)), key=lambda t: tiles[t].key))
        order = np.lexsort((index, order_of_tile[tile], -area, cut > 0))
        centroid = np.concatenate([t.centroid[i] for t, i in pairs])
        return cls(tile, index, centroid, np.concatenate([t.bbox[i] for t, i in pairs]), cut, np.argsort(order))

    def written(self, tiles: Sequence[Seen], counts: Bool, around: Box) -> list[UInt8]:
        flags = [tile.flags.copy() for tile in tiles]
        renewed = _inside(self.centroid, around.grown(NEAR / 2))
        for number, each in enumerate(flags):
            mine = renewed & (self.tile == number)
            each[self.index[mine]] = each[self.index[mine]] & CUT | ~counts[mine] * ELSEWHERE
        return flags


def _owners(points: Float64, tiles: Sequence[Seen], slide: tuple[int, int]) -> Int64:
    """(N,) which tile owns each point, -1 for none."""
    owner, best = np.full(len(points), -1, np.int64), np.full(len(points), -np.inf)
    for number in sorted(range(len(tiles)), key=lambda t: tiles[t].key):
        edges = _inner_edges(tiles[number].place, slide)
        depth = np.minimum(points - edges[:2], edges[2:] - points).min(axis=1)
        better = _inside(points, tiles[number].place.core) & (depth > best)
        owner[better], best[better] = number, depth[better]
    return owner


def _ranked(known: _Known, one: Int64, other: Int64) -> tuple[Int64, Int64]:
    """Of each pair the better one, and the worse one."""
    first = known.rank[one] < known.rank[other]
    return np.where(first, one, other), np.where(first, other, one)


def _second_best(known: _Known, among: Int64) -> Int64:
    """Those that are one nucleus with a better one."""
    one, other = _pairs(known, among, among)
    return _ranked(known, one, other)[1]


def _pairs(known: _Known, some: Int64, others: Int64) -> Int64:
    """(2, N): pairs of some and others that are one nucleus in two tiles; in both orders where both are in both."""
    boxes, around = (shapely.box(*(known.bbox[each] + [-TOUCH, -TOUCH, TOUCH, TOUCH]).T) for each in (some, others))
    one, other = shapely.STRtree(around).query(boxes)
    one, other = some[one], others[other]
    mixed = known.tile[one] != known.tile[other]
    one, other = one[mixed], other[mixed]
    a, b = known.bbox[one], known.bbox[other]
    shared = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shorter = np.minimum(a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2])
    cut_both = (known.cut[one] & known.cut[other])[:, None] & np.array([CUT_ACROSS, CUT_DOWN]) > 0
    halves = cut_both & (np.abs(shared) <= TOUCH)
    same = np.all((shared >= shorter / 2) | halves, axis=1)
    return np.stack([one[same], other[same]])


def _inside(points: Float64, box: Box) -> Bool:
    return np.asarray(((points >= box[:2]) & (points < box[2:])).all(axis=1), np.bool_)


def _inner_edges(place: Place, slide: tuple[int, int]) -> Float64:
    """x0, y0, x1, y1 of the tile; an edge on the slide's border cuts nothing and lies infinitely far away."""
    box = np.array(place.box, np.float64)
    at_border = np.array([box[0] <= 0, box[1] <= 0, box[2] >= slide[0], box[3] >= slide[1]])
    return np.where(at_border, [-np.inf, -np.inf, np.inf, np.inf], box)
