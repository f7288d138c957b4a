"""Intervals are as wide as clusters make them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats.document import wilson
from app.slides.composition import interval

WINDOWS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30)


@given(WINDOWS)
def test_an_interval_holds_the_share_and_stays_between_nothing_and_all(windows):
    part, rest = np.array(windows).T
    if (part + rest).sum() == 0:
        return
    low, high = interval(part, part + rest)
    share = part.sum() / (part + rest).sum()
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


@given(WINDOWS)
def test_clusters_never_make_it_narrower_than_independent_nuclei_would(windows):
    part, rest = np.array(windows).T
    if (part + rest).sum() == 0:
        return
    low, high = interval(part, part + rest)
    alone = wilson(int(part.sum()), int((part + rest).sum()))
    assert high - low >= alone[1] - alone[0] - 1e-12


def test_one_window_is_taken_as_it_is():
    assert interval(np.array([3]), np.array([10])) == pytest.approx(wilson(3, 10))


def test_it_covers_the_truth_where_nuclei_of_a_kind_lie_together():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        whole = rng.poisson(50, 60) + 1
        low, high = interval(rng.binomial(whole, rng.beta(0.6, 1.4, 60)), whole)
        inside += low <= 0.3 <= high
    assert 0.91 < inside / 400 < 0.98
