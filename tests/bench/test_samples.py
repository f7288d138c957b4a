"""Figures of a phase: from intended times, from when it settled, with refusals and failures apart."""

from __future__ import annotations

import math

import pytest

from app.bench.samples import NO_ANSWER, NOT_SENT, Answer, Sample, jain, keeping_up, per_second, settled_at, summarise


def sample(intended: float, took: float = 0.1, status: int = 200, late: float = 0.0) -> Sample:
    return Sample(intended, intended + late, intended + took, Answer(status))


def test_latency_counts_from_the_intended_time():
    assert summarise([sample(1.0, took=0.5, late=0.4)], 2, 1).p50_ms == pytest.approx(500)


def test_every_request_is_served_refused_or_failed():
    statuses = [200, 200, 503, 429, 500, 422, NO_ANSWER, NOT_SENT]
    own = summarise([sample(i, status=status) for i, status in enumerate(statuses)], 8, 1)
    assert (own.sent, own.ok, own.refused, own.failed) == (8, 2, 2, 4)


def test_what_comes_after_the_objective_is_no_goodput():
    own = summarise([sample(0, took=1.9), sample(1, took=2.1)], 2, 2)
    assert (own.answered_per_s, own.goodput_per_s) == (1.0, 0.5)


def test_a_phase_without_answers_has_no_percentiles():
    own = summarise([sample(0, status=503)], 1, 1)
    assert math.isnan(own.p99_ms)


@pytest.mark.parametrize(
    ("windows", "first"),
    [([10, 10, 10], 0), ([5, 10, 10.5, 9.8], 1), ([5, 10, 20, 40], None), ([10, 10], None), ([0, 0, 0], None)],
)
def test_a_phase_is_settled_when_three_windows_agree(windows, first):
    assert settled_at(windows) == first


def test_what_came_before_the_phase_settled_does_not_count():
    slow = [sample(i / 10, took=4.0) for i in range(50)]
    steady = [sample(5 + i / 10) for i in range(150)]
    own = summarise([*slow, *steady], 20, 1, windows=[1, 10, 10, 10])
    assert (own.sent, own.stable, own.p99_ms) == (150, True, pytest.approx(100))


def test_a_phase_that_never_settles_counts_whole_and_says_so():
    assert summarise([sample(1)], 20, 1, windows=[1, 2, 4, 8]).stable is False
    assert summarise([sample(1)], 20, 1, windows=[1, 1]).stable is None


def test_keeping_up_is_one_while_answers_follow_requests():
    samples = [sample(i / 20) for i in range(20 * 15)]
    assert keeping_up(samples, 15) == pytest.approx([1, 1, 1], abs=0.05)


def test_an_even_overload_is_steady_below_one():
    samples = [sample(i / 20, took=i / 20 + 0.1) for i in range(20 * 15)]  # half as fast as they come
    assert keeping_up(samples, 15) == pytest.approx([0.5, 0.5, 0.5], abs=0.03)


def test_per_second_counts_what_was_served():
    samples = [sample(i / 10, status=200 if i % 2 else 503) for i in range(100)]
    assert per_second(samples, 10) == pytest.approx([5, 5], abs=0.21)


@pytest.mark.parametrize(("shares", "index"), [([3, 3, 3, 3], 1), ([1, 0, 0, 0], 0.25), ([1, 1, 0, 0], 0.5)])
def test_jains_index_is_the_share_of_those_who_have_something(shares, index):
    assert jain(shares) == pytest.approx(index)
    assert jain([7 * share for share in shares]) == pytest.approx(index)
