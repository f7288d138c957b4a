"""Whether the runs that are averaged agree on what is nucleus."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from app.nuclei import ballots, engine
from app.nuclei.types import Ballot, HoverMaps, combined
from app.nuclei.views import VIEWS, View, average, predict
from tests.drawn import InkEngine, draw_tissue

RUNS = npst.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4), st.just(6)), elements=st.floats(0, 1, width=32))


def _maps(np_prob: np.ndarray) -> HoverMaps:
    return HoverMaps(np_prob, np.zeros((*np_prob.shape, 2), np.float32), np.zeros((*np_prob.shape, 7), np.float32))


@given(RUNS)
def test_a_ballot_counts_the_runs_that_take_a_pixel_for_nucleus(runs: np.ndarray) -> None:
    said = ballots.joint([ballots.cast(run) for run in runs])
    np.testing.assert_array_equal(said.votes, (runs >= 0.5).sum(0))
    assert said.runs == len(runs)


@given(RUNS, st.integers(1, 4))
def test_it_does_not_matter_in_which_order_or_groups_runs_are_added(runs: np.ndarray, cut: int) -> None:
    cast = [ballots.cast(run) for run in runs]
    together = ballots.joint([ballots.joint(group) for group in (cast[cut:], cast[:cut]) if group])
    np.testing.assert_array_equal(together.votes, ballots.joint(cast).votes)
    assert together.runs == len(runs)


@given(RUNS)
def test_disagreement_is_what_the_mean_dice_of_two_runs_lacks_to_one(runs: np.ndarray) -> None:
    taken = [run >= 0.5 for run in runs]
    pairs = list(combinations(taken, 2))
    common, sizes = (
        sum(float(f(a, b)) for a, b in pairs) for f in (lambda a, b: 2 * (a & b).sum(), lambda a, b: a.sum() + b.sum())
    )
    expected = 1 - common / sizes if sizes else 0
    share = ballots.disagreement(ballots.joint([ballots.cast(run) for run in runs]))
    assert share == pytest.approx(expected)
    assert 0 <= share <= 1


def test_disagreement_does_not_grow_with_the_number_of_runs() -> None:
    rng = np.random.default_rng(0)
    tissue = rng.random((400, 400), np.float32)
    noisy = [tissue + rng.normal(0, 0.1, tissue.shape).astype(np.float32) for _ in range(8)]
    shares = [ballots.disagreement(ballots.joint([ballots.cast(run) for run in noisy[:n]])) for n in (2, 3, 6, 8)]
    assert np.ptp(shares) < 0.01 < min(shares)


def test_one_member_in_one_view_has_no_ballot() -> None:
    one = _maps(np.ones((1, 8, 8), np.float32))
    assert engine.mean([one]).ballot is None
    assert average(lambda patches: one, np.zeros((1, 8, 8, 3), np.uint8), VIEWS[:1]).ballot is None


@given(npst.arrays(np.float32, (3, 1, 6, 6), elements=st.floats(0, 1, width=32)))
def test_members_that_disagree_are_told(members: np.ndarray) -> None:
    ballot = engine.mean([_maps(member) for member in members]).ballot
    assert ballot is not None
    np.testing.assert_array_equal(ballot.votes, (members >= 0.5).sum(0))
    assert ballot.runs == 3


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_a_ballot_is_brought_back_with_its_maps(view: View) -> None:
    probability = np.random.default_rng(0).random((2, 8, 8), np.float32)
    seen = view.see(probability[..., None])[..., 0]
    maps = replace(_maps(seen), ballot=ballots.cast(seen))
    back = view.unsee(maps).ballot
    assert back is not None
    np.testing.assert_array_equal(back.votes, ballots.cast(probability).votes)


def test_views_of_an_engine_that_sees_the_same_from_every_side_agree() -> None:
    ballot = predict(InkEngine(), draw_tissue(96, 96)[None], VIEWS).ballot
    assert ballot is not None
    assert set(np.unique(ballot.votes)) == {0, len(VIEWS)}
    assert ballots.disagreement(ballot) == 0


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
    assert (ballot.votes == 1).all()
    assert ballots.disagreement(ballot) == 1


def test_maps_are_combined_with_their_ballots() -> None:
    plain = _maps(np.ones((4, 4), np.float32))
    both = combined([replace(plain, ballot=Ballot(np.full((4, 4), n, np.uint8), 3)) for n in (1, 2)], np.stack)
    assert both.ballot is not None
    assert both.ballot.votes[:, 0, 0].tolist() == [1, 2]
    second = both[1].ballot
    assert second is not None
    assert ((second.votes == 2).all(), second.runs) == (True, 3)
    assert combined([plain, plain], np.stack).ballot is None


def test_a_ballot_of_another_size_is_refused() -> None:
    plain = _maps(np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match="different size"):
        replace(plain, ballot=Ballot(np.zeros((4, 5), np.uint8), 3))
