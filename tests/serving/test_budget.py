"""Work is admitted by what it costs, refused early and honestly, and every bit of it comes back."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.nuclei.errors import DeadlineUnattainable, Overloaded, PayloadTooLarge, TenantQuota
from app.serving.budget import Budget, Claim
from app.serving.rules import Rules
from app.serving.work import WorkClass

INTERACTIVE, BULK = WorkClass


@dataclass
class Steady:
    """A device that does 10 units of cost per second, at time 1000."""

    cost_per_s: float = 10.0

    def clock(self) -> float:
        return 1000.0


def budget(most: float = 100.0, per_tenant: float = 60.0, jitter: float = 0.0) -> Budget:
    return Budget(most, per_tenant, Steady(), Rules(), lambda: jitter)


def claim(cost: float, tenant: str = "a", work_class: WorkClass = INTERACTIVE, deadline: float | None = None) -> Claim:
    return Claim(tenant, work_class, cost, deadline)


def test_bulk_finds_room_to_seventy_percent_and_a_person_behind_it():
    full = budget()
    with full.reserve(claim(50, "a", BULK)), full.reserve(claim(20, "b", BULK)):
        with pytest.raises(Overloaded), full.reserve(claim(1, "c", BULK)):
            pass
        with full.reserve(claim(30, "c")), pytest.raises(Overloaded), full.reserve(claim(1, "d")):
            pass
    assert full.held == 0


def test_who_would_wait_too_long_behind_its_own_work_is_told_when_that_is_done():
    busy = Budget(100.0, 60.0, Steady(), Rules(), lambda: 0.0, longest_wait_s=1.5)
    with busy.reserve(claim(15)), busy.reserve(claim(15)):  # 15 take 1.5 s
        with pytest.raises(Overloaded, match=r"3\.0 s of work") as refusal, busy.reserve(claim(20)):
            pass
        assert refusal.value.retry_after_s == 3
        with busy.reserve(claim(1)):  # requests take turns: two of its size are before it
            pass


def test_who_names_a_deadline_or_sends_bulk_work_waits_as_long_as_that_takes():
    busy = Budget(100.0, 60.0, Steady(), Rules(), lambda: 0.0, longest_wait_s=1.5)
    with busy.reserve(claim(20)), busy.reserve(claim(20, deadline=1010.0)), busy.reserve(claim(20, work_class=BULK)):
        pass


def test_a_tenant_does_not_wait_for_all_that_another_one_sent():
    busy = Budget(100.0, 60.0, Steady(), Rules(), lambda: 0.0, longest_wait_s=1.5)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(busy.reserve(claim(15)))
        with pytest.raises(Overloaded), busy.reserve(claim(15)):
            pass
        with busy.reserve(claim(15, "b")):  # it and the other one take turns
            pass


def test_where_no_work_at_all_would_be_taken_that_is_said_before_it_is_known_how_much_it_is():
    full = Budget(100.0, 60.0, Steady(), Rules(), lambda: 0.0, longest_wait_s=1.5)
    with full.reserve(claim(60, "a", BULK)), full.reserve(claim(10, "b", BULK)):
        with pytest.raises(TenantQuota):
            full.check("a", INTERACTIVE)
        with pytest.raises(Overloaded):
            full.check("c", BULK)
        full.check("c", INTERACTIVE)
    full.check("a", INTERACTIVE)
    assert full.held == 0


def test_an_idle_service_takes_work_of_any_length():
    idle = Budget(100.0, 60.0, Steady(), Rules(), lambda: 0.0, longest_wait_s=1.5)
    with idle.reserve(claim(60)):
        pass


def test_a_tenant_over_its_quota_is_told_when_enough_of_its_work_is_done():
    busy = budget()
    with busy.reserve(claim(40)):
        with pytest.raises(TenantQuota) as refusal, busy.reserve(claim(50)):
            pass
        assert refusal.value.retry_after_s == 3  # 30 too much, 10 a second
        with busy.reserve(claim(50, "b")):
            assert busy.held == 90


def test_a_tenant_that_had_its_share_lately_is_told_when_its_allowance_refills():
    slow = Budget(100.0, 60.0, Steady(), Rules(), lambda: 0.0, rate=4.0)
    with slow.reserve(claim(50)):
        pass
    with pytest.raises(TenantQuota) as refusal, slow.reserve(claim(30)):
        pass
    assert refusal.value.retry_after_s == 5  # 20 too much, 4 a second
    with slow.reserve(claim(10)), slow.reserve(claim(60, "b")):
        assert slow.held == 70


def test_what_was_refused_is_not_spent():
    slow = Budget(100.0, 60.0, Steady(), Rules(), lambda: 0.0, rate=4.0)
    with slow.reserve(claim(60, "b")):
        for _ in range(9):
            with pytest.raises(Overloaded), slow.reserve(claim(50)):
                pass
    with slow.reserve(claim(60)) as held:
        assert held.left == 60


@pytest.mark.parametrize(("cost", "work_class"), [(61, INTERACTIVE), (61, BULK)])
def test_what_an_idle_replica_would_refuse_is_too_large(cost, work_class):
    with pytest.raises(PayloadTooLarge), budget().reserve(claim(cost, work_class=work_class)):
        pass
    with pytest.raises(PayloadTooLarge), budget(per_tenant=1000).reserve(claim(71, work_class=BULK)):
        pass


def test_a_deadline_that_the_work_ahead_leaves_no_time_for_is_refused_only_if_the_caller_set_it():
    busy = budget()
    with busy.reserve(claim(40)):
        with pytest.raises(DeadlineUnattainable) as refusal, busy.reserve(claim(20, "b", deadline=1003.9)):
            pass
        assert refusal.value.retry_after_s == 4
        with busy.reserve(claim(20, "b", deadline=1004.1)) as held:
            assert held.deadline == 1004.1


def test_a_deadline_shorter_than_the_work_itself_is_told_what_would_suffice_and_not_to_come_back():
    told = pytest.raises(DeadlineUnattainable, match=r"about 2\.0 s .* with 2000 ms")
    with told as refusal, budget().reserve(claim(20, deadline=1001.9)):
        pass
    assert refusal.value.retry_after_s is None


def test_what_is_ahead_counts_as_far_as_it_gets_turns_before_this_is_done():
    busy = budget(most=1000, per_tenant=500)
    with busy.reserve(claim(400, "a")), busy.reserve(claim(1, "a")), busy.reserve(claim(400, "b")):
        assert busy.seconds(claim(4, "a")) == pytest.approx((4 + 4 + 1 + 9) / 10)
        assert busy.seconds(claim(4, "c")) == pytest.approx((4 + 4 + 4) / 10)


def test_without_a_word_the_deadline_is_ten_seconds_or_three_times_the_estimate_and_half_an_hour_for_jobs():
    roomy = budget(most=10_000, per_tenant=10_000)
    deadlines = []
    for one in (claim(1), claim(50), claim(1, work_class=BULK)):
        with roomy.reserve(one) as held:
            deadlines.append(held.deadline - 1000)
    assert deadlines == [10, pytest.approx(15), 1800]


@pytest.mark.parametrize(("work_class", "seconds"), [(INTERACTIVE, 4 + 0.5 + 0.1), (BULK, 4 + 4 + 0.1)])
def test_the_other_class_is_served_by_its_weight_meanwhile(work_class, seconds):
    both = budget(most=1000)
    with both.reserve(claim(20, "a", work_class)), both.reserve(claim(40, "b", work_class.other)):
        assert both.seconds(claim(20, "c", work_class)) == pytest.approx(seconds)


def test_what_is_done_comes_back_before_the_rest():
    part = budget()
    with part.reserve(claim(40)) as held:
        held.release(15)
        assert part.held == 25
        held.release(100)
        assert part.held == 0
    assert part.held == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(WorkClass)), st.floats(0.25, 80)), max_size=40))
def test_limits_hold_and_everything_comes_back_whatever_is_asked(asked):
    tight = budget()
    with ExitStack() as held:
        for tenant, work_class, cost in asked:
            try:
                held.enter_context(tight.reserve(claim(cost, tenant, work_class)))
            except (Overloaded, TenantQuota, PayloadTooLarge):
                continue
            assert tight.held <= 100 * (1 if work_class is INTERACTIVE else 0.7) + 1e-6
        assert all(cost <= 60 + 1e-6 for cost in tight._tenants.values())
    assert (tight.held, tight._tenants, tight._reservations) == (0, {}, set())
