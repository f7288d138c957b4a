"""Arrivals are drawn beforehand, at the rate that was asked for, and bounded."""

from __future__ import annotations

import numpy as np
import pytest

from app.bench.arrivals import poisson


def test_arrivals_rise_and_stay_within_the_phase():
    times = poisson(50, 10, 10_000)
    assert (np.diff(times) > 0).all()
    assert times[0] > 0
    assert times[-1] < 10


@pytest.mark.parametrize("rate", [2.0, 50.0, 400.0])
def test_their_number_is_poisson(rate):
    numbers = [len(poisson(rate, 10, 10**6, seed)) for seed in range(200)]
    mean, expected = np.mean(numbers), 10 * rate
    assert mean == pytest.approx(expected, abs=5 * (expected / 200) ** 0.5)
    assert np.var(numbers) == pytest.approx(expected, rel=0.5)


def test_the_same_seed_gives_the_same_arrivals():
    np.testing.assert_array_equal(poisson(9, 5, 100, seed=3), poisson(9, 5, 100, seed=3))
    assert len(poisson(9, 5, 100, seed=3)) != len(poisson(9, 5, 100, seed=8))


def test_no_more_are_drawn_than_asked_for():
    assert len(poisson(1000, 1000, 7)) == 7


@pytest.mark.parametrize(("rate", "seconds", "most"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (float("nan"), 1, 1)])
def test_a_load_of_nothing_is_refused(rate, seconds, most):
    with pytest.raises(ValueError, match="no load"):
        poisson(rate, seconds, most)
