"""Cutting and laying together again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.nuclei.tiling import Mosaic, plan
from app.nuclei.types import Ballot, HoverMaps

SIDES = st.integers(1, 260)


def _as_maps(patch: np.ndarray) -> HoverMaps:
    values = patch.astype(np.float32)
    return HoverMaps(values[..., 0], values[..., :2], np.repeat(values[..., 2:], 7, -1))


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, margin=st.integers(0, 15))
def test_cut_then_stitch_is_the_identity(height: int, width: int, margin: int) -> None:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    tiling = plan(height, width, (32, 64), margin)
    whole = tiling.stitch([_as_maps(patch) for patch in tiling.cut(image)])
    np.testing.assert_array_equal(whole.hv, image[..., :2])
    np.testing.assert_array_equal(whole.type_prob[..., 0], image[..., 2])


@pytest.mark.parametrize("side", [40, 200])
def test_ballots_are_laid_together_as_maps_are(side: int) -> None:
    image = np.random.default_rng(side).integers(0, 3, (side, side, 3), np.uint8)
    tiling = plan(side, side, (32, 64), 8)
    patches = [replace(_as_maps(patch), ballot=Ballot(patch[..., 0], 3)) for patch in tiling.cut(image)]
    ballot = tiling.stitch(patches).ballot
    assert ballot is not None
    np.testing.assert_array_equal(ballot.votes, image[..., 0])
    assert ballot.runs == 3


def test_patches_that_nobody_looked_at_have_no_say() -> None:
    tiling = plan(100, 64, (64,), 8)
    mosaic = Mosaic(tiling)
    seen, unseen = (_as_maps(np.ones((64, 64, 3), np.uint8)) for _ in range(2))
    mosaic.lay(0, replace(seen, ballot=Ballot(np.full((64, 64), 2, np.uint8), 3)))
    mosaic.lay(1, unseen)
    ballot = mosaic.maps.ballot
    assert ballot is not None
    assert (ballot.votes[:40].min(), ballot.votes[60:].max()) == (2, 0)


def test_maps_without_ballots_have_none_together() -> None:
    tiling = plan(100, 64, (64,), 8)
    assert tiling.stitch([_as_maps(np.ones((64, 64, 3), np.uint8))] * 2).ballot is None


@pytest.mark.parametrize("side", [1, 31, 32, 33, 63, 64])
def test_an_image_that_fits_a_patch_size_is_one_patch_of_the_smallest(side: int) -> None:
    tiling = plan(side, 5, (32, 64), 8)
    assert (len(tiling), tiling.patch) == (1, 32 if side <= 32 else 64)


@pytest.mark.parametrize("side", [65, 97, 3 * 64 + 7, 1000])
def test_every_inner_side_of_a_patch_has_its_margin(side: int) -> None:
    tiling = plan(side, side, (32, 64), 8)
    for before, after in zip(tiling.rows, tiling.rows[1:], strict=False):
        assert before.start + 64 - before.high >= 8
        assert after.low - after.start >= 8


@pytest.mark.parametrize("side", [65, 97, 1000])
def test_patches_of_a_large_image_hold_nothing_but_the_image(side: int) -> None:
    tiling = plan(side, side, (32, 64), 8)
    assert all(span.start >= 0 and span.start + 64 <= side for span in tiling.rows)


def test_the_cut_of_a_flipped_image_is_the_flipped_cut() -> None:
    tiling = plan(500, 700, (128, 256), 32)
    assert [700 - 256 - s.start for s in reversed(tiling.cols)] == [s.start for s in tiling.cols]


@pytest.mark.parametrize(("height", "width", "margin"), [(0, 5, 0), (5, 0, 0), (5, 5, 16), (5, 5, -1)])
def test_what_cannot_be_planned_is_refused(height: int, width: int, margin: int) -> None:
    with pytest.raises(ValueError, match=r"pixels|margin"):
        plan(height, width, (32, 64), margin)


def test_an_image_of_another_size_than_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="planned for"):
        list(plan(10, 10, (32,), 4).cut(np.zeros((10, 11, 3), np.uint8)))


@pytest.mark.parametrize("side", [40, 100])
def test_class_maps_are_laid_as_a_copy_that_may_be_written_to(side: int) -> None:
    tiling = plan(side, side, (32, 64), 8)
    patches = [_as_maps(np.ones((64, 64, 3), np.uint8)) for _ in range(len(tiling))]
    tiling.stitch(patches).type_prob[:] = 0
    assert all((patch.type_prob == 1).all() for patch in patches)


def test_more_or_fewer_patches_than_were_cut_are_refused() -> None:
    patch = _as_maps(np.ones((64, 64, 3), np.uint8))
    for count in (3, 5):
        with pytest.raises(ValueError, match=f"{count} patches for a tiling of 4"):
            plan(100, 100, (32, 64), 8).stitch([patch] * count)
