"""Viewports, walks and their bounds, on both databases."""

from __future__ import annotations

import numpy as np
import pytest

from app.nuclei.errors import NotFound, ViewportTooDense
from app.slides import reading
from app.slides.places import Box
from app.slides.reading import PAGE, covered, walk
from app.slides.viewing import viewport
from tests.slides.kept import SLIDE, WHOLE, assert_same_nuclei, by_place, cut_up, found

EVERYTHING = Box(0, 0, 600, 480)


@pytest.fixture
def slide(store):
    kept = store.add_slide(SLIDE)
    for tile in cut_up(150, overlap=32):
        store.put_tile(kept.id, tile)
    return kept.id


@pytest.mark.parametrize("box", [EVERYTHING, Box(100, 90, 180, 200), Box(340.3, 5, 340.4, 470), Box(-50, -50, 20, 20)])
def test_a_viewport_holds_what_meets_it_and_nothing_else(store, slide, box):
    whole = found(WHOLE)
    x0, y0, x1, y1 = whole.bbox.T
    meets = (x0 < box.x1) & (x1 > box.x0) & (y0 < box.y1) & (y1 > box.y0)
    expected = by_place(whole)[np.isin(by_place(whole)[:, 0], whole.centroid[meets, 0])]
    seen = [by_place(each.nuclei) for each in viewport(store.database, slide, box, 10_000)]
    seen = np.concatenate(seen)
    assert len(seen) == meets.sum() > 0
    assert set(map(tuple, seen.round(6))) <= set(map(tuple, expected.round(6)))


def test_a_viewport_next_to_tissue_is_empty(store, slide):
    assert viewport(store.database, slide, Box(10_000, 10_000, 10_100, 10_100), 10) == []


def test_a_viewport_may_ask_for_some_classes(store, slide):
    parts = [viewport(store.database, slide, EVERYTHING, 10_000, classes=[kind]) for kind in range(7)]
    kinds = [{int(k) for each in part for k in each.nuclei.type} for part in parts]
    assert all(found_kinds <= {kind} for kind, found_kinds in enumerate(kinds))
    assert sum(len(each.nuclei) for part in parts for each in part) == len(found(WHOLE))
    assert viewport(store.database, slide, EVERYTHING, 10_000, classes=[]) == []


@pytest.mark.parametrize("box", [EVERYTHING, Box(60, 60, 240, 240)])
def test_too_dense_a_viewport_is_refused_with_both_figures(store, slide, box):
    total = sum(len(each.nuclei) for each in viewport(store.database, slide, box, 10_000))
    assert sum(len(each.nuclei) for each in viewport(store.database, slide, box, total)) == total
    with pytest.raises(ViewportTooDense) as refused:
        viewport(store.database, slide, box, total - 1)
    assert refused.value.limit == total - 1 < refused.value.count <= total


def test_a_walk_meets_each_nucleus_once_in_reading_order(store, slide):
    steps = list(walk(store.database, slide))
    assert len(steps) > PAGE
    places = [(each.tile.place.y, each.tile.place.x) for each in steps]
    assert places == sorted(places)
    assert sum(len(each.nuclei) for each in steps) == len(found(WHOLE)) == sum(each.tile.counted for each in steps)


def test_rings_go_with_their_nuclei(store, slide):
    for each in walk(store.database, slide):
        low = [ring.min(axis=0) for ring in each.nuclei.rings]
        assert [list(corner) for corner in low] == each.nuclei.bbox[:, :2].tolist()


def test_a_viewport_of_everything_is_the_walk(store, slide):
    seen = viewport(store.database, slide, EVERYTHING, 10_000)
    steps = [each for each in walk(store.database, slide) if len(each.nuclei)]
    assert [each.tile for each in seen] == [each.tile for each in steps]
    for ours, theirs in zip(seen, steps, strict=True):
        assert_same_nuclei(ours.nuclei, theirs.nuclei)


def test_a_slide_that_does_not_exist_has_no_view(store):
    with pytest.raises(NotFound):
        viewport(store.database, "0" * 32, EVERYTHING, 10)
    with pytest.raises(NotFound):
        next(walk(store.database, "0" * 32))


@pytest.mark.parametrize("most_cells", [0, 10**6], ids=["by polygons", "by cells"])
def test_ground_that_is_covered_twice_counts_once(monkeypatch, most_cells):
    monkeypatch.setattr(reading, "_MOST_CELLS", most_cells)
    assert covered(np.array([[0, 0, 10, 10], [5, 5, 15, 15], [2, 2, 3, 3], [20, 0, 21, 1.5]])) == 100 + 75 + 1.5
    assert covered(np.zeros((0, 4))) == 0
