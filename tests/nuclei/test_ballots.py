"""Whether the runs that are averaged agree on what is nucleus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from app.nuclei import ballots, engine
from app.nuclei.types import HoverMaps, combined
from app.nuclei.views import VIEWS, View, average, predict
from tests.drawn import InkEngine, draw_tissue

RUNS = npst.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4), st.just(6)), elements=st.floats(0, 1, width=32))


def _maps(np_prob: np.ndarray) -> HoverMaps:
    return HoverMaps(np_prob, np.zeros((*np_prob.shape, 2), np.float32), np.zeros((*np_prob.shape, 7), np.float32))


@given(RUNS)
def test_a_ballot_says_whether_no_run_all_or_some_take_a_pixel_for_nucleus(runs: np.ndarray) -> None:
    said = ballots.joint(ballots.cast(run) for run in runs)
    taken = runs >= 0.5
    np.testing.assert_array_equal(said == ballots.ALL, taken.all(0))
    np.testing.assert_array_equal(said == ballots.NOBODY, ~taken.any(0))


@given(RUNS, st.integers(1, 4))
def test_it_does_not_matter_in_which_order_or_groups_runs_are_added(runs: np.ndarray, cut: int) -> None:
    cast = [ballots.cast(run) for run in runs]
    groups = [ballots.joint(group) for group in (cast[cut:], cast[:cut]) if group]
    np.testing.assert_array_equal(ballots.joint(groups), ballots.joint(cast))


@given(RUNS)
def test_disagreement_is_a_share_and_none_where_all_say_the_same(runs: np.ndarray) -> None:
    share = ballots.disagreement(ballots.joint(ballots.cast(run) for run in runs))
    assert 0 <= share <= 1
    assert share == 0 or len(runs) > 1
    assert ballots.disagreement(ballots.cast(runs[0])) == 0


def test_disagreement_counts_pixels_that_some_take_for_nucleus_and_not_all() -> None:
    assert ballots.disagreement(np.array([[0, 0, 0, 1, 2, 2, 2]], np.uint8)) == 0.25


def test_one_member_in_one_view_has_no_ballot() -> None:
    one = _maps(np.ones((1, 8, 8), np.float32))
    assert engine.mean([one]).ballot is None
    assert average(lambda patches: one, np.zeros((1, 8, 8, 3), np.uint8), VIEWS[:1]).ballot is None


@given(npst.arrays(np.float32, (3, 1, 6, 6), elements=st.floats(0, 1, width=32)))
def test_members_that_disagree_are_told(members: np.ndarray) -> None:
    ballot = engine.mean([_maps(member) for member in members]).ballot
    np.testing.assert_array_equal(ballot, ballots.joint(ballots.cast(member) for member in members))


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_a_ballot_is_brought_back_with_its_maps(view: View) -> None:
    probability = np.random.default_rng(0).random((2, 8, 8), np.float32)
    seen = view.see(probability[..., None])[..., 0]
    maps = replace(_maps(seen), ballot=ballots.cast(seen))
    np.testing.assert_array_equal(view.unsee(maps).ballot, ballots.cast(probability))


def test_views_of_an_engine_that_sees_the_same_from_every_side_agree() -> None:
    ballot = predict(InkEngine(), draw_tissue(96, 96)[None], VIEWS).ballot
    assert ballot is not None
    assert set(np.unique(ballot)) == {ballots.NOBODY, ballots.ALL}


class Wavering:
    """Takes all for nucleus whenever it is asked a second time."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, patches: np.ndarray) -> HoverMaps:
        self.asked += 1
        return _maps(np.full(patches.shape[:3], (self.asked + 1) % 2, np.float32))


def test_views_that_disagree_are_told() -> None:
    ballot = average(Wavering().predict, np.zeros((1, 8, 8, 3), np.uint8), VIEWS[:3]).ballot
    assert ballot is not None
    assert (ballot == ballots.SOME).all()


def test_maps_are_combined_with_their_ballots_if_all_have_one() -> None:
    plain = _maps(np.ones((4, 4), np.float32))
    voted = replace(plain, ballot=ballots.cast(plain.np_prob))
    both = combined([voted, voted], np.stack)
    assert both.ballot is not None
    assert both.ballot.shape == both.np_prob.shape == (2, 4, 4)
    assert combined([voted, plain], np.stack).ballot is None


def test_a_ballot_of_another_size_is_refused() -> None:
    plain = _maps(np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match="different size"):
        replace(plain, ballot=np.zeros((4, 5), np.uint8))
