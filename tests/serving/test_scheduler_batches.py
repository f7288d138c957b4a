"""Which items make a batch, when it starts, and what happens to those that are staged, cancelled or late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.rules import Rules
from app.serving.scheduler import Backlog
from app.serving.work import Bucket
from tests.serving.simulated import BULK, INTERACTIVE, LARGE, OTHER, SMALL, Device, work

HAIR = 1e-9


# Buckets, room and slices


def test_within_a_class_buckets_take_turns_whatever_their_deadlines():
    device = Device(max_batch_cost=2)
    device.submit(*(work(bucket=LARGE, deadline=10.0) for _ in range(4)), work(bucket=SMALL, deadline=30.0))
    device.submit(*(work(bucket=OTHER, deadline=20.0) for _ in range(2)))
    assert [batch.bucket for batch in device.drain()] == [LARGE, SMALL, OTHER, LARGE]


@pytest.mark.parametrize(("fill_s", "filled"), [(1e9, 5), (0.03, 3), (0.0, 0)])
def test_room_that_interactive_leaves_goes_to_bulk_of_its_bucket_within_the_fill(fill_s, filled):
    device = Device(max_batch_cost=6, rules=Rules(bulk_fill_s=fill_s))
    device.submit(work(INTERACTIVE), *(work(BULK) for _ in range(9)), *(work(BULK, bucket=LARGE) for _ in range(9)))
    batch = device.step()
    assert [item.work_class for item in batch.items] == [INTERACTIVE] + [BULK] * filled


@given(st.floats(0.001, 0.2), st.floats(0, 0.1), st.floats(0.02, 0.2), st.integers(1, 64))
def test_a_slice_is_as_long_as_it_may_be_and_no_longer(a, b, slice_s, limit):
    device = Device(a, b, limit, Rules(bulk_slice_s=slice_s))
    device.submit(*(work() for _ in range(500)))
    batch = device.start()
    assert batch.estimate_s <= slice_s + HAIR or len(batch.items) == 1
    assert batch.cost + 1 > limit or a * (batch.cost + 1) + b > slice_s - HAIR


def test_slices_are_shorter_while_somebody_looks_on():
    device = Device(a=0.01, max_batch_cost=64, rules=Rules(bulk_slice_s=0.1, watched_share=0.5, watched_s=1.0))
    device.submit(*(work(BULK) for _ in range(100)))
    alone = device.step()
    device.submit(work(INTERACTIVE, enqueued=device.now))
    device.step()
    watched = device.step()
    device.now += 1.0
    assert [len(batch.items) for batch in (alone, watched, device.step())] == [10, 5, 10]


def test_free_slots_bound_a_batch_and_none_free_means_none():
    device = Device()
    device.submit(*(work() for _ in range(9)))
    assert (len(device.step(free_slots=2).items), device.pick(free_slots=0).batch) == (2, None)


def test_a_limit_halved_after_memory_ran_out_holds_from_the_next_batch():
    device = Device(max_batch_cost=8)
    device.submit(*(work() for _ in range(16)))
    device.step()
    device.scheduler.model(SMALL).max_batch_cost /= 2
    assert [batch.cost for batch in device.drain()] == [4, 4]


# Waiting, staging, cancelling


def test_an_idle_device_waits_for_company_for_bulk_and_not_for_interactive():
    device = Device()
    device.submit(work(BULK, enqueued=0.0))
    assert device.pick().wait_until == 0.002
    device.submit(work(INTERACTIVE))
    assert device.pick().batch is not None


@pytest.mark.parametrize("reason", ["full batch", "full slots", "due", "other bucket", "busy", "deadline"])
def test_nobody_waits_for_company_when_there_is_a_reason_to_go(reason):
    device = Device(max_batch_cost=2)
    if reason == "busy":
        device.submit(work(INTERACTIVE))
        device.start()
    device.submit(work(BULK, deadline=0.011 if reason == "deadline" else 60))
    device.submit(*[work(BULK)] * (reason == "full batch"), *[work(BULK, bucket=LARGE)] * (reason == "other bucket"))
    device.now = 0.002 if reason == "due" else 0.0
    assert device.pick(free_slots=1 if reason == "full slots" else 9).batch is not None


def test_a_staged_slice_gives_way_and_comes_back_in_its_order():
    device = Device(rules=Rules(bulk_slice_s=0.04))
    device.submit(*(work(BULK, tenant) for tenant in "aaabbbccc"))
    running, staged = device.start(), device.start()
    device.submit(work(INTERACTIVE, bucket=LARGE))
    assert device.scheduler.unstage(staged) == ()
    urgent = device.start()
    device.finish(running)
    device.finish(urgent)
    assert (urgent.is_slice, device.step().items) == (False, staged.items)


def test_what_is_cancelled_while_staged_leaves_when_it_comes_back():
    device = Device()
    first, second = work(), work()
    device.submit(first, second)
    batch = device.start()
    assert device.scheduler.cancel([first.id, -1]).in_flight == (first,)
    assert device.scheduler.unstage(batch) == (first,)
    assert device.start().items == (second,)


def test_a_batch_is_unwanted_once_all_of_it_is_cancelled():
    device = Device()
    items = work(), work()
    device.submit(*items)
    batch, seen = device.start(), []
    for item in items:
        device.scheduler.cancel([item.id])
        seen.append(device.scheduler.is_unwanted(batch))
    assert seen == [False, True]
    device.finish(batch)
    device.submit(*items)
    assert not device.scheduler.is_unwanted(device.start())


def test_an_item_that_can_no_longer_be_in_time_is_lost_and_not_run():
    device = Device(a=1.0)
    late, fine = work(cost=5, deadline=4.9), work(cost=4, deadline=4.0)
    device.submit(late, fine)
    pick = device.pick()
    assert (pick.lost, pick.batch and pick.batch.items) == ((late,), (fine,))


def test_one_item_refused_means_none_is_queued():
    device, item = Device(), work()
    for strange in (item, work(bucket=Bucket("never@1", 1, 256))):
        with pytest.raises(ValueError, match=r"here already|not calibrated"):
            device.submit(item, strange)
    assert device.scheduler.queued(BULK) == Backlog(0, 0)


@pytest.mark.parametrize(("cost", "deadline"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_work_without_a_cost_or_a_deadline_is_no_work(cost, deadline):
    with pytest.raises(ValueError, match="must be"):
        work(cost=cost, deadline=deadline)
