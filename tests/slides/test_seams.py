"""However a slide is cut and in whatever order the pieces come, each nucleus counts once."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from app.nuclei.errors import InvalidParameter
from app.slides import seams
from app.slides.database import Database
from app.slides.places import Box, Place
from app.slides.reading import list_tiles, totals, walk
from app.slides.store import Store
from tests.slides.kept import SLIDE, WHOLE, by_place, cut_up, described, found, tile_at


@pytest.fixture
def store(tmp_path):
    database = Database.open(f"sqlite:///{tmp_path / 'one.sqlite'}")
    yield Store(database)
    database.close()


def keep(store: Store, tiles) -> str:
    slide = store.add_slide(SLIDE)
    for tile in tiles:
        store.put_tile(slide.id, tile)
    return slide.id


def counting(store: Store, slide_id: str):
    """Centroid and area of all nuclei that count, sorted."""
    pieces = [by_place(each.nuclei) for each in walk(store.database, slide_id, with_rings=False)]
    rows = np.concatenate(pieces)
    return rows[np.lexsort(rows.T)]


def test_windows_with_margins_give_the_nuclei_of_the_whole(store):
    slide = keep(store, cut_up(200, margin=32))
    np.testing.assert_allclose(counting(store, slide), by_place(found(WHOLE)), atol=1e-9)


@pytest.mark.parametrize("overlap", [32, 70])
def test_tiles_that_overlap_by_more_than_a_nucleus_give_the_nuclei_of_the_whole(store, overlap):
    slide = keep(store, cut_up(200, overlap=overlap))
    np.testing.assert_allclose(counting(store, slide), by_place(found(WHOLE)), atol=1e-9)


@pytest.mark.parametrize("side", [97, 150, 161])
def test_a_nucleus_between_abutting_tiles_counts_once_and_is_marked(store, side):
    tiles = cut_up(side)
    slide = keep(store, tiles)
    kept = totals(store.database, slide)
    assert kept.counted == len(found(WHOLE))
    assert sum(len(tile.nuclei) for tile in tiles) > kept.counted
    cut = sum(int((each.flags & seams.CUT).astype(bool).sum()) for each in walk(store.database, slide, False))
    assert kept.cut == cut > 0


@pytest.mark.parametrize("cut", [{"side": 200, "overlap": 10}, {"side": 97}, {"side": 200, "margin": 32}])
def test_the_order_in_which_tiles_come_does_not_matter(store, cut):
    tiles = cut_up(**cut)
    one = counting(store, keep(store, tiles))
    for seed in range(3):
        shuffled = random.Random(seed).sample(tiles, len(tiles))
        np.testing.assert_array_equal(counting(store, keep(store, shuffled)), one)


def test_the_four_quarters_of_a_nucleus_are_one(store):
    image = np.full((480, 600, 3), 255, np.uint8)
    image[90:110, 88:113] = 10
    corners = [tile_at(x, y, 100, 100, image=image) for x, y in itertools.product((0, 100), repeat=2)]
    for order in itertools.permutations(corners):
        kept = totals(store.database, keep(store, order))
        assert (kept.counted, kept.cut) == (1, 1)


def test_neighbours_on_both_sides_of_a_seam_stay_two(store):
    image = np.full((480, 600, 3), 255, np.uint8)
    image[20:40, 80:100] = image[40:60, 100:120] = 10  # they meet in one point of the seam
    slide = keep(store, [tile_at(0, 0, 100, 100, image=image), tile_at(100, 0, 100, 100, image=image)])
    assert totals(store.database, slide).counted == 2


def test_the_slides_border_cuts_nothing(store):
    image = np.full((480, 600, 3), 10, np.uint8)
    slide = keep(store, [tile_at(0, 0, 600, 480, image=image)])
    assert (totals(store.database, slide).counted, totals(store.database, slide).cut) == (1, 0)


def test_a_margin_without_a_neighbour_is_left_out(store):
    tile = tile_at(100, 100, 200, 200, margin=50)
    inside = found(WHOLE[100:300, 100:300]).centroid + 100
    expected = ((inside >= 150) & (inside < 250)).all(axis=1).sum()
    assert totals(store.database, keep(store, [tile])).counted == expected > 0


def test_two_pictures_of_one_place_count_once(store):
    grainy = np.clip(WHOLE.astype(int) + 1, 0, 255).astype(np.uint8)
    slide = keep(store, [tile_at(0, 0, 600, 480), tile_at(0, 0, 600, 480, image=grainy)])
    assert len(list_tiles(store.database, slide)) == 2
    assert totals(store.database, slide).counted == len(found(WHOLE))


def test_a_nucleus_that_each_tile_leaves_to_the_other_is_not_lost(store):
    slide = store.add_slide(SLIDE)
    left, right = np.zeros((100, 116), np.int32), np.zeros((100, 116), np.int32)
    left[40:60, 94:110] = 1  # centroid at 102, beyond the left core's end at 100
    right[40:60, 6:24] = 1  # from 90 on the slide: centroid at 99, before the right core begins there
    for place, labels in (
        (Place.inside(0, 0, 116, 100, 16, (600, 100)), left),
        (Place.inside(84, 0, 116, 100, 16, (600, 100)), right),
    ):
        tile = tile_at(0, 0, 116, 100, nuclei=described(labels), place=place, content_sha256=f"{place.x:064.0f}")
        store.put_tile(slide.id, tile)
    assert totals(store.database, slide.id).counted == 1


CORNER = {"upper left": (0, 0), "upper right": (80, 0), "lower left": (0, 80), "lower right": (80, 80)}
"""Tiles of 120 pixels whose cores, of 100, meet at (100, 100)."""


@pytest.mark.parametrize(
    "centroids",
    [
        {"upper left": (100.2, 99.5), "upper right": (99.8, 99.5), "lower left": (99.6, 100.3)},
        {"upper left": (100.2, 99.5), "upper right": (99.8, 99.5), "lower left": (100.2, 100.3)}
        | {"lower right": (99.8, 100.3)},
    ],
    ids=["owned by a third", "left to each other twice"],
)
def test_a_nucleus_at_a_corner_where_tiles_disagree_by_a_hair_counts_once(centroids):
    for order in itertools.permutations(centroids):
        tiles = [at_corner(name, centroids[name]) for name in order]
        flags = seams.settle(tiles, tiles[-1].place.core, (1000, 1000))
        assert [bool(each[0] & seams.ELSEWHERE) for each in flags].count(False) == 1


def at_corner(name: str, centroid: tuple[float, float]) -> seams.Seen:
    """What a tile says of a nucleus of ten pixels around the corner."""
    x, y = CORNER[name]
    core = Box(x + 20 * (x > 0), y + 20 * (y > 0), x + 100 + 20 * (x > 0), y + 100 + 20 * (y > 0))
    box, key = np.array([[95.0, 95.0, 105.0, 105.0]]), (float(y), float(x), 120.0, 120.0, name)
    place = Place(x, y, 120, 120, core)
    return seams.Seen(place, key, np.array([centroid]), box, np.array([100.0]), np.zeros(1, np.uint8))


@pytest.mark.parametrize("place", [(-1, 0, 10, 10, 0), (0, 0, 601, 10, 0), (10, 10, 100, 100, 50), (0, 0, 10, 10, -1)])
def test_an_impossible_place_is_refused(place):
    with pytest.raises(InvalidParameter):
        Place.inside(*place, (600, 480))


def test_the_core_reaches_the_slides_border():
    assert Place.inside(0, 0, 600, 100, 16, (600, 480)).core == (0, 0, 600, 84)
