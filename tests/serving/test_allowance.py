"""A bucket per tenant: what was spent flows back with time, and nobody else pays for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.allowance import Allowance


def test_a_full_bucket_is_spent_at_once_and_refills_at_its_rate():
    allowance = Allowance(rate=2.0, burst=10.0)
    allowance.spend("a", 10, now=100.0)
    assert [allowance.short_s("a", 4, now) for now in (100.0, 101.0, 102.0)] == [2.0, 1.0, 0.0]
    assert allowance.short_s("b", 10, 100.0) == 0.0


def test_without_a_rate_nobody_is_limited():
    allowance = Allowance(None, 1.0)
    allowance.spend("a", 1e9, 0.0)
    assert (allowance.short_s("a", 1e9, 0.0), len(allowance)) == (0.0, 0)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 8)), min_size=1, max_size=50))
def test_no_tenant_gets_more_than_its_burst_and_its_rate(asked):
    allowance, now, spent = Allowance(rate=1.5, burst=8.0), 0.0, 0.0
    for pause, cost in asked:
        now += pause
        if not allowance.short_s("a", cost, now):
            allowance.spend("a", cost, now)
            spent += cost
        assert spent <= 8.0 + 1.5 * now + 1e-6


@given(st.floats(0.1, 8), st.floats(0.1, 8))
def test_who_waits_as_long_as_told_is_let_in(first, then):
    allowance = Allowance(rate=1.5, burst=8.0)
    allowance.spend("a", first, 0.0)
    wait = allowance.short_s("a", then, 0.0)
    assert allowance.short_s("a", then, wait) == pytest.approx(0.0, abs=1e-9)


def test_tenants_of_the_past_take_no_room():
    allowance = Allowance(rate=1.0, burst=5.0)
    for number in range(10_000):
        allowance.spend(f"t{number}", 1.0, float(number))
    assert len(allowance) < 200
