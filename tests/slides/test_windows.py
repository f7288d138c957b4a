"""Windows of any size cover a slide once, and their patches are those of the slide as one image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.nuclei import tiling
from app.nuclei.errors import InvalidParameter
from app.nuclei.types import HoverMaps
from app.slides.places import Box
from app.slides.regions import Grid
from app.slides.windows import Area, on_grid, windows

SIDES = st.integers(1, 700)


def grid_of(width: int, height: int) -> Grid:
    return Grid(0, width, height, 1.0, 1.0, 1.0, 1.0)


def cut(height: int, width: int, side: int, region: Area | None = None):
    plan = tiling.plan(height, width, [64], 12)
    return plan, list(windows(plan, side, 12, region or Area(0, 0, width, height)))


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES)
def test_cores_cover_every_pixel_once(height, width, side):
    covered = np.zeros((height, width), int)
    for window in cut(height, width, side)[1]:
        covered[window.core.y0 : window.core.y1, window.core.x0 : window.core.x1] += 1
        assert window.seen.within(window.core) == window.core
        assert window.seen.within(window.read).within(Area(0, 0, width, height)) == window.seen
    assert (covered == 1).all()


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, st.data())
def test_cores_cover_a_region_once_and_nothing_else(height, width, side, data):
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    region = Area(x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height)))
    covered = np.zeros((height, width), int)
    for window in cut(height, width, side, region)[1]:
        covered[window.core.y0 : window.core.y1, window.core.x0 : window.core.x1] += 1
    inside = np.zeros_like(covered)
    inside[region.y0 : region.y1, region.x0 : region.x1] = 1
    np.testing.assert_array_equal(covered, inside)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), SIDES)
def test_inside_its_core_a_window_has_the_maps_of_the_whole_slide(height, width, side):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    plan, found = cut(height, width, side)
    whole = plan.stitch([seen(patch) for patch in plan.cut(image)])
    for window in found:
        read = window.read.within(Area(0, 0, width, height))
        own = window.plan(Area(0, 0, width, height))
        maps = own.stitch([seen(patch) for patch in own.cut(image[read.y0 : read.y1, read.x0 : read.x1])])
        x0, y0, x1, y1 = window.core
        part = maps.np_prob[y0 - read.y0 : y1 - read.y0, x0 - read.x0 : x1 - read.x0]
        np.testing.assert_array_equal(part, whole.np_prob[y0:y1, x0:x1])


def seen(patch: np.ndarray) -> HoverMaps:
    """A network whose answer depends on where in its patch a pixel lies."""
    ramp = np.linspace(0, 1, patch.shape[0], dtype=np.float32)
    prob = patch[..., 0] * (1 + ramp[:, None]) + ramp
    return HoverMaps(prob, np.zeros((*prob.shape, 2), np.float32), np.zeros((*prob.shape, 7), np.float32))


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SIDES)
def test_every_patch_is_looked_at_in_one_window(height, width, side):
    plan, found = cut(height, width, side)
    assert sum(len(window.patches()) for window in found) == len(plan)


def test_windows_inside_a_region_are_those_of_the_whole_slide():
    _, everything = cut(600, 800, 120)
    _, some = cut(600, 800, 120, Area(150, 130, 700, 500))
    assert len(set(some) & set(everything)) > len(some) / 4


def test_a_region_beside_the_slide_is_refused():
    for box in (Box(-5, 0, 0, 10), Box(100, 0, 110, 10), Box(5, 5, 5, 9), Box(9, 5, 5, 9)):
        with pytest.raises(InvalidParameter, match="region"):
            on_grid(box, grid_of(100, 50))
    assert on_grid(Box(-5, 1.5, 10.5, 1000), grid_of(100, 50)) == Area(0, 1, 11, 50)
