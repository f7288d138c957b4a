"""Overlay tiles laid together are one picture, and what they show is what is kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sqlalchemy import delete

from app.nuclei.types import Mpp
from app.slides.density import CELL, Cells
from app.slides.overlays import blank, overlay_png
from app.slides.pyramid import Pyramid, PyramidTile
from app.slides.reading import totals, walk
from app.slides.recent import Recent
from app.slides.records import NewSlide
from app.slides.schema import densities
from app.slides.viewing import density
from tests.drawn import draw_tissue
from tests.slides.kept import cut_up
from tests.slides.test_pyramid import tiles_of

WIDTH, HEIGHT = 700, 531
TISSUE = draw_tissue(HEIGHT, WIDTH, seed=5)
LEVELS = Pyramid(WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def pieces():
    return cut_up(300, margin=32, image=TISSUE)


@pytest.fixture
def slide(sqlite_library, pieces):
    store = sqlite_library.store
    kept = store.add_slide(NewSlide(WIDTH, HEIGHT, Mpp(0.5, 0.5)))
    for piece in pieces:
        store.put_tile(kept.id, piece)
    return store.slide(kept.id)


@pytest.fixture
def drawn(sqlite_library, slide):
    def draw(tile, classes=None, outlines_to=4):
        picture = overlay_png(sqlite_library.store.database, slide, tile, classes, outlines_to, Recent(2**24))
        return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)

    return draw


def whole(level: int) -> PyramidTile:
    return PyramidTile(level, 2 ** (LEVELS.top - level), 0, 0, *LEVELS.size(level))


@pytest.mark.parametrize("level", [LEVELS.top, LEVELS.top - 1, LEVELS.top - 2, LEVELS.top - 3, LEVELS.top - 5, 0])
def test_overlay_tiles_laid_together_are_the_one_big_picture(drawn, level):
    expected = drawn(whole(level))
    laid = np.zeros_like(expected)
    for tile in tiles_of(LEVELS, level):
        laid[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = drawn(tile)
    np.testing.assert_array_equal(laid, expected)
    assert level == 0 or expected[..., 3].any()


def test_every_nucleus_has_its_outline_and_nothing_else_is_drawn(drawn, sqlite_library, slide):
    picture = drawn(whole(LEVELS.top))
    opaque = (picture[..., 3] > 0).astype(np.uint8)
    parts = cv2.connectedComponents(opaque, connectivity=8)[0] - 1
    assert parts == totals(sqlite_library.store.database, slide.id).counted


def test_only_the_classes_asked_for_are_shown(drawn, sqlite_library, slide):
    every = drawn(whole(LEVELS.top))[..., 3] > 0
    found = [drawn(whole(LEVELS.top), {kind})[..., 3] > 0 for kind in range(7)]
    np.testing.assert_array_equal(np.any(found, axis=0), every)
    assert not drawn(whole(LEVELS.top), set()).any()
    assert not drawn(whole(LEVELS.top - 4), set()).any()
    assert drawn(whole(LEVELS.top - 4), {1, 2, 3})[..., 3].any()


@pytest.mark.parametrize("side", [CELL, 2 * CELL, 16 * CELL, 4096 * CELL])
def test_each_nucleus_is_in_one_cell_whatever_their_size(sqlite_library, slide, side):
    database = sqlite_library.store.database
    columns, rows = -(-WIDTH // side), -(-HEIGHT // side)
    counts = density(database, slide.id, Cells(0, 0, columns, rows, side))
    expected = np.zeros_like(counts)
    for part in walk(database, slide.id):
        at = (part.nuclei.centroid // side).astype(int)
        np.add.at(expected, (part.nuclei.type, at[:, 1], at[:, 0]), 1)
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == totals(database, slide.id).counted


def test_boxes_of_cells_laid_together_are_the_whole(sqlite_library, slide):
    database = sqlite_library.store.database
    both = density(database, slide.id, Cells(-3, -2, 20, 15, 2 * CELL))
    left, right = (density(database, slide.id, Cells(x, -2, 10, 15, 2 * CELL)) for x in (-3, 7))
    np.testing.assert_array_equal(np.concatenate([left, right], axis=2), both)


def test_tiles_kept_before_there_were_densities_are_counted_all_the_same(sqlite_library, slide):
    database, cells = sqlite_library.store.database, Cells(0, 0, 22, 17)
    before = density(database, slide.id, cells)
    with database.write() as connection:
        connection.execute(delete(densities))
    np.testing.assert_array_equal(density(database, slide.id, cells), before)


def test_where_nothing_is_the_tile_is_the_one_blank_one(sqlite_library):
    store = sqlite_library.store
    empty = store.add_slide(NewSlide(WIDTH, HEIGHT, None))
    for tile in (LEVELS.tile(LEVELS.top, 0, 0), LEVELS.tile(3, 0, 0)):
        assert overlay_png(store.database, empty, tile, None, 4, Recent(0)) is blank(tile.width, tile.height)
