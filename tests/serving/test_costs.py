"""The cost model finds the device's speed, follows it, and is not thrown by a stall."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.costs import BOUND, GAIN, CostModel
from app.serving.work import Bucket

factors = st.floats(0.3, 3.0)


@given(factors, factors, st.integers(0, 99))
def test_a_wrong_calibration_is_corrected_by_batches_of_many_sizes(a_off, b_off, seed):
    model, draw = CostModel(0.01 * a_off, 0.02 * b_off, 16), random.Random(seed)
    for _ in range(1500):
        cost = draw.randint(1, 16)
        model.learn(cost, 0.01 * cost + 0.02)
    assert (model.a, model.b) == (pytest.approx(0.01, rel=0.02), pytest.approx(0.02, rel=0.05))


@given(st.integers(1, 16), factors)
def test_batches_of_one_size_make_the_estimate_of_that_size_right(cost, speed):
    model = CostModel(0.01, 0.02, 16)
    for _ in range(200):
        model.learn(cost, speed * (0.01 * cost + 0.02))
    assert model.estimate(cost) == pytest.approx(speed * (0.01 * cost + 0.02), rel=1e-3)


@given(st.floats(0.25, 64), st.floats(0, 1e9))
def test_one_batch_moves_its_estimate_by_a_tenth_at_most(cost, seconds):
    model = CostModel(0.01, 0.02, 16)
    before = model.estimate(cost)
    model.learn(cost, seconds)
    assert abs(model.estimate(cost) - before) <= GAIN * before * (1 + 1e-9)


@given(st.lists(st.tuples(st.floats(0.25, 64), st.sampled_from([0.0, 1e-6, 1e9])), max_size=300))
def test_whatever_it_is_told_it_stays_near_its_calibration(told):
    model = CostModel(0.01, 0.02, 16)
    for cost, seconds in told:
        model.learn(cost, seconds)
    assert 0.01 / BOUND <= model.a <= 0.01 * BOUND
    assert 0 <= model.b <= 0.03 * BOUND


def test_a_stall_every_twenty_batches_hardly_shows():
    model, draw = CostModel(0.01, 0.02, 16), random.Random(7)
    for number in range(2000):
        cost = draw.randint(1, 16)
        model.learn(cost, (0.01 * cost + 0.02) * (100 if number % 20 == 0 else 1))
    assert model.estimate(8) == pytest.approx(0.1, rel=0.15)


@given(st.floats(0, 10))
def test_cost_within_is_the_inverse_of_the_estimate(seconds):
    model = CostModel(0.01, 0.02, 16)
    cost = model.cost_within(seconds)
    assert model.estimate(cost) == pytest.approx(max(seconds, 0.02))


@pytest.mark.parametrize("numbers", [(0, 0, 1), (-1, 0, 1), (1, -1, 1), (1, 0, 0), (float("nan"), 0, 1)])
def test_a_model_that_makes_no_sense_is_refused(numbers):
    with pytest.raises(ValueError, match="no cost model"):
        CostModel(*numbers)


def test_the_cost_of_a_patch_counts_pixels_views_and_members():
    assert Bucket("m@1", 3, 512).cost(members=2) == 24


def test_full_batches_set_the_pace():
    assert CostModel(0.01, 0.04, 16).cost_per_s == pytest.approx(16 / 0.2)


def test_what_a_batch_is_filled_up_with_takes_time_as_well():
    padded, plain = CostModel(0.01, 0.1, 64.0, unit=3.0), CostModel(0.01, 0.1, 64.0)
    assert padded.estimate(5 * 3.0) == pytest.approx(plain.estimate(8 * 3.0))
    assert padded.estimate(8 * 3.0) == pytest.approx(plain.estimate(8 * 3.0))
    assert [padded.cost_within(plain.estimate(n * 3.0) + 1e-9) / 3.0 for n in (1, 2, 3, 7, 8)] == [1, 2, 2, 4, 8]


def test_a_device_that_fills_up_is_learnt_from_by_what_it_ran():
    padded, plain = CostModel(0.01, 0.0, 8.0, unit=1.0), CostModel(0.01, 0.0, 8.0)
    padded.learn(5.0, 0.16)
    plain.learn(8.0, 0.16)
    assert (padded.a, padded.b) == (plain.a, plain.b)
