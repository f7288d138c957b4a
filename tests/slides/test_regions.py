"""A slide at any scale, window by window, is the slide at that scale."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.nuclei.errors import InvalidParameter, MppRequired
from app.nuclei.types import Mpp
from app.slides.opening import open_source
from app.slides.regions import choose_level, grid_at, read_window, required, slide_mpp
from app.slides.sources import pyramid
from tests.drawn import draw_tissue

TISSUE = draw_tissue(301, 403)
SCALES = st.floats(0.15, 3.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("regions") / "slide.tif"
    tifffile.imwrite(path, TISSUE, rowsperstrip=50)
    with open_source(path) as opened:
        yield opened


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SCALES, SCALES, SCALES, st.data())
def test_a_window_is_that_part_of_the_whole(source, mpp_x, mpp_y, wanted, data):
    grid = grid_at(source, Mpp(mpp_x, mpp_y), wanted)
    everything = read_window(source, grid, 0, 0, grid.width, grid.height)
    assert everything.shape == (grid.height, grid.width, 3)
    x, y = data.draw(st.integers(0, grid.width - 1)), data.draw(st.integers(0, grid.height - 1))
    width, height = data.draw(st.integers(1, grid.width - x)), data.draw(st.integers(1, grid.height - y))
    window = read_window(source, grid, x, y, width, height)
    part = everything[y : y + height, x : x + width]
    assert np.abs(window.astype(int) - part).max() <= 1


@pytest.mark.parametrize("wanted", [0.3, 0.4, 0.7, 1.0, 2.2])
def test_a_resampled_slide_is_what_opencv_gives(source, wanted):
    grid = grid_at(source, Mpp(0.5, 0.5), wanted)
    how = cv2.INTER_AREA if wanted > 0.5 else cv2.INTER_LINEAR
    expected = cv2.resize(TISSUE, (grid.width, grid.height), interpolation=how)
    assert np.abs(read_window(source, grid, 0, 0, grid.width, grid.height).astype(int) - expected).max() <= 1


def test_a_scale_within_two_percent_is_left_alone(source):
    grid = grid_at(source, Mpp(0.499, 0.506), 0.5)
    assert (grid.width, grid.height, grid.scale_x, grid.scale_y) == (403, 301, 1.0, 1.0)
    np.testing.assert_array_equal(read_window(source, grid, 0, 0, 403, 301), TISSUE)


def test_grid_positions_times_scale_are_slide_positions(source):
    grid = grid_at(source, Mpp(0.25, 0.26), 0.5)
    assert (grid.width * grid.scale_x, grid.height * grid.scale_y) == (pytest.approx(403), pytest.approx(301))


@pytest.mark.parametrize(("factor", "level"), [(0.5, 0), (1, 0), (1.97, 1), (1.9, 0), (3.9, 1), (4, 2), (50, 2)])
def test_the_next_finer_level_is_read(factor, level):
    assert choose_level(pyramid([(4443, 3567), (2221, 1783), (1110, 891)]), factor, factor) == level


def test_levels_that_were_halved_have_whole_scales():
    assert [level.scale_x for level in pyramid([(4443, 3567), (2221, 1783), (1110, 891)])] == [1, 2, 4]
    assert pyramid([(1000, 1000), (300, 300)])[1].scale_x == pytest.approx(10 / 3)


@pytest.mark.parametrize("wanted", [0.5, 1.0, 1.3])
def test_a_coarser_level_shows_what_the_finest_shows_at_the_same_place(data_root, wanted):
    with open_source(data_root / "slides" / "dicom_cmu1_small") as pyramidal:
        coarse = grid_at(pyramidal, Mpp(0.249, 0.249), wanted)
        assert coarse.level > 0
        flat = cv2.resize(
            pyramidal.read(0, 0, 0, 2220, 2967), (coarse.width, coarse.height), interpolation=cv2.INTER_AREA
        )
        window = read_window(pyramidal, coarse, 100, 150, 200, 180).astype(int)
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    # Levels were compressed anew, so they are not equal; but nowhere are they more alike than in place.
    apart = [np.abs(window - flat[150 + d : 330 + d, 100 + r : 300 + r]).mean() for d, r in shifts]
    assert shifts[int(np.argmin(apart))] == (0, 0)


@pytest.mark.parametrize("window", [(0, 0, 404, 1), (-1, 0, 2, 2), (0, 0, 0, 1), (402, 300, 1, 2)])
def test_a_window_that_sticks_out_is_an_error(source, window):
    with pytest.raises(ValueError, match="inside the grid"):
        read_window(source, grid_at(source, Mpp(0.5, 0.5), 0.5), *window)


def test_the_callers_scale_wins_and_a_conflict_is_noted():
    assert slide_mpp(0.25, (0.5, 0.5)) == Mpp(0.25, 0.25, "request", conflict=True)
    assert slide_mpp(0.5, (0.499, 0.499)) == Mpp(0.5, 0.5, "request", conflict=False)
    assert slide_mpp(None, (0.25, 0.26)) == Mpp(0.25, 0.26, "file")


def test_without_a_scale_no_slide_is_analysed():
    with pytest.raises(MppRequired, match="mpp"):
        required(slide_mpp(None, None))
    assert required(slide_mpp(0.5, None)) == Mpp(0.5, 0.5, "request")


@pytest.mark.parametrize("mpp", [0, -1.0, float("nan"), float("inf")])
def test_an_impossible_scale_is_refused(mpp):
    with pytest.raises(InvalidParameter):
        slide_mpp(mpp, None)
