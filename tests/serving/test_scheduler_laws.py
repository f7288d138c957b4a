"""Who goes first, and how much each one gets: the laws of a fair queue, on a device that takes exactly its time."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.deadlines import Deadlines
from app.serving.rules import Rules
from app.serving.work import Batch
from tests.serving.simulated import BULK, INTERACTIVE, LARGE, OTHER, SMALL, Device, work

HAIR = 1e-9
slow_enough = settings(max_examples=25, deadline=None)


def tenants_of(batch: Batch) -> list[str]:
    return [item.tenant for item in batch.items]


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def backlog(device: Device, costs: dict[str, float], batches: int, max_batch_cost: float) -> None:
    """Give each tenant more items of its cost than `batches` batches can hold, one tenant after the other."""
    for tenant, cost in costs.items():
        device.submit(*(work(tenant=tenant, cost=cost) for _ in range(int(batches * max_batch_cost / cost) + 2)))


# Tenants


def test_tenants_take_turns():
    device = Device(max_batch_cost=3)
    device.submit(*(work(tenant=tenant) for tenant in "aaabbc"))
    assert [tenants_of(batch) for batch in device.drain()] == [["a", "b", "c"], ["a", "b", "a"]]


@given(
    st.lists(st.sampled_from([0.25, 1.0, 1.5, 4.0, 24.0]), min_size=2, max_size=5),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([1.0, 4.0, 7.5, 30.0]),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
@slow_enough
def test_no_backlogged_tenant_is_ahead_by_more_than_a_quantum_and_an_item(costs, quantum, limit, unstaged):
    device = Device(max_batch_cost=limit, rules=Rules(quantum=quantum, bulk_slice_s=1e9))
    backlog(device, {str(i): cost for i, cost in enumerate(costs)}, 40, max(limit, *costs))
    for put_back in unstaged:
        batch = device.start()
        if put_back:
            device.scheduler.unstage(batch)
            batch = device.start()
        device.finish(batch)
        served = [device.cost_of(str(i)) for i in range(len(costs))]
        assert max(served) - min(served) < quantum + max(costs) + HAIR


@pytest.mark.parametrize("costs", [(1, 1, 1, 1), (1, 2, 3, 6), (24, 24, 24, 24), (0.5, 0.5, 12, 12)])
def test_the_jain_index_of_four_equal_tenants_is_above_098(costs):
    device = Device(max_batch_cost=4, rules=Rules(bulk_slice_s=1e9))
    backlog(device, dict(zip("abcd", costs, strict=True)), 1000, max(4, *costs))
    for _ in range(1000):
        device.step()
    assert jain([device.cost_of(tenant) for tenant in "abcd"]) >= 0.98


def test_a_newcomer_waits_for_one_round_whatever_the_backlog():
    device = Device(max_batch_cost=3)
    device.submit(*(work(tenant=tenant) for tenant in "ab" * 500))
    device.step()
    device.submit(work(tenant="new"))
    assert "new" in tenants_of(device.step())


def test_a_slow_payer_saves_up_for_an_item_that_costs_more_than_the_quantum():
    device = Device(max_batch_cost=1)
    device.submit(work(tenant="big", cost=3), *(work(tenant="small") for _ in range(5)))
    assert [tenants_of(batch)[0] for batch in device.drain()] == ["small", "small", "big", "small", "small", "small"]


def test_an_item_that_is_larger_than_a_batch_runs_alone():
    device = Device(max_batch_cost=4)
    device.submit(work(cost=1), work(cost=9), work(cost=1))
    assert [batch.cost for batch in device.drain()] == [1, 9, 1]


# Requests of one tenant


def requests_of(batch: Batch) -> list[int]:
    return [item.request for item in batch.items]


def test_the_requests_of_a_tenant_take_turns():
    device = Device(max_batch_cost=3)
    device.submit(*(work(request=number) for number in (1, 1, 1, 2, 2, 3)))
    assert [requests_of(batch) for batch in device.drain()] == [[1, 2, 3], [1, 2, 1]]


def test_many_requests_get_a_tenant_no_more_than_its_turn():
    device = Device(max_batch_cost=4)
    device.submit(*(work(tenant="many", request=number) for number in range(40)))
    device.submit(*(work(tenant="one") for _ in range(40)))
    for _ in range(15):
        assert sorted(tenants_of(device.step())) == ["many", "many", "one", "one"]


@given(
    st.lists(st.lists(st.sampled_from([0.25, 1.0, 4.0, 24.0]), min_size=1, max_size=3), min_size=1, max_size=3),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([1.0, 7.5, 30.0]),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
@slow_enough
def test_no_backlogged_request_is_ahead_of_its_tenants_others_by_more_than_a_quantum_and_an_item(
    tenants, quantum, limit, unstaged
):
    device = Device(max_batch_cost=limit, rules=Rules(quantum=quantum, bulk_slice_s=1e9))
    most = max(cost for costs in tenants for cost in costs)
    for tenant, costs in enumerate(tenants):
        for number, cost in enumerate(costs):
            count = int(25 * max(limit, most) / cost) + 2
            device.submit(*(work(tenant=str(tenant), cost=cost, request=number) for _ in range(count)))
    for put_back in unstaged:
        batch = device.start()
        if put_back:
            device.scheduler.unstage(batch)
            batch = device.start()
        device.finish(batch)
        for tenant, costs in enumerate(tenants):
            served = [device.cost_of(str(tenant), number) for number in range(len(costs))]
            assert max(served) - min(served) < quantum + most + HAIR


@pytest.mark.parametrize("bucket", [SMALL, LARGE], ids=["same bucket", "other bucket"])
@pytest.mark.parametrize("staging", [False, True])
def test_a_small_tile_behind_a_large_upload_of_the_same_caller_is_in_the_next_batch_but_one(bucket, staging):
    device = Device(a=0.05, max_batch_cost=8)
    device.submit(*(work(INTERACTIVE, bucket=LARGE, cost=4, deadline=78, request=1) for _ in range(121)))
    batches = [device.start(), *([device.start()] if staging else [])]
    tile = work(INTERACTIVE, bucket=bucket, cost=4 if bucket is LARGE else 1, deadline=80, request=2)
    device.submit(tile)
    for batch in batches:
        device.finish(batch)
    assert tile in (*device.step().items, *device.step().items)


@pytest.mark.parametrize("bucket", [SMALL, LARGE], ids=["other bucket", "same bucket"])
def test_a_large_upload_keeps_its_turns_among_small_tiles_that_never_cease(bucket):
    device = Device(max_batch_cost=8)
    device.submit(*(work(INTERACTIVE, bucket=LARGE, cost=4, request=1) for _ in range(20)))
    for number in range(45):
        device.submit(work(INTERACTIVE, bucket=bucket, cost=4, request=number + 2))
        device.step()
    assert device.cost_of("t", 1) == 80


# Buckets


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1.0, 4.0, 12.0]), st.sampled_from([4.0, 16.0]))
@slow_enough
def test_backlogged_buckets_share_the_device_by_the_tenants_in_them(few, many, large, limit):
    device = Device(max_batch_cost=limit, rules=Rules(bulk_slice_s=1e9))
    backlog(device, {f"small {i}": 1.0 for i in range(few)}, 40, max(limit, large))
    for i in range(many):
        count = int(40 * max(limit, large) / large) + 2
        device.submit(*(work(tenant=f"large {i}", bucket=LARGE, cost=large) for _ in range(count)))
    for _ in range(30):
        device.step()
        small = sum(device.cost_of(f"small {i}") for i in range(few)) / few
        other = sum(device.cost_of(f"large {i}") for i in range(many)) / many
        assert abs(small - other) <= max(limit, large) / min(few, many) + HAIR


def test_a_bucket_that_waits_is_served_after_one_batch_of_each_other_however_much_comes_there():
    device = Device(max_batch_cost=2)
    device.submit(*(work(bucket=bucket) for bucket in (SMALL, OTHER) for _ in range(4)))
    device.step()
    waiting = work(bucket=LARGE)
    device.submit(waiting)
    for _ in range(3):
        device.submit(*(work(bucket=bucket, request=len(device.ran)) for bucket in (SMALL, OTHER) for _ in range(3)))
        device.step()
    assert waiting in [item for batch in device.ran for item in batch.items]


# Classes


@given(
    st.sampled_from([(8.0, 1.0), (3.0, 2.0), (1.0, 1.0)]),
    st.sampled_from([0.02, 0.1, 0.3]),
    st.sampled_from([4.0, 16.0]),
    st.sampled_from([SMALL, LARGE]),
)
@slow_enough
def test_backlogged_classes_share_the_device_by_weight_within_one_batch(weights, slice_s, limit, bulk_bucket):
    device = Device(max_batch_cost=limit, rules=Rules(*weights, bulk_slice_s=slice_s))
    device.submit(*(work(INTERACTIVE) for _ in range(int(100 * limit))))
    device.submit(*(work(BULK, bucket=bulk_bucket) for _ in range(int(100 * limit))))
    for _ in range(90):
        device.step()
        interactive, bulk = device.device_s(INTERACTIVE) / weights[0], device.device_s(BULK) / weights[1]
        assert -limit * device.a / weights[0] - HAIR <= bulk - interactive <= slice_s / weights[1] + HAIR


def test_bulk_keeps_a_ninth_of_the_device_even_with_a_batch_staged():
    device = Device(max_batch_cost=8, rules=Rules(bulk_slice_s=0.08))
    device.submit(*(work(INTERACTIVE) for _ in range(5000)), *(work(BULK) for _ in range(5000)))
    running = device.start()
    for _ in range(450):
        staged = device.start()
        device.finish(running)
        running = staged
    assert device.device_s(BULK) / device.now == pytest.approx(1 / 9, abs=2 * 0.08 / device.now)
    assert not any(one.is_slice and two.is_slice for one, two in itertools.pairwise(device.ran))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), max_size=8))
@slow_enough
def test_an_interactive_item_that_arrives_while_bulk_runs_is_in_the_next_batch(history):
    device = Device(a=0.02, max_batch_cost=32, rules=Rules(bulk_slice_s=0.04))
    device.submit(*(work(BULK) for _ in range(400)))
    for tiles, slices in history:
        device.submit(*(work(INTERACTIVE, bucket=LARGE) for _ in range(tiles)))
        while device.scheduler.queued(INTERACTIVE).count:
            device.step()
        for _ in range(slices):
            device.step()
    running, viewer = device.start(), work(INTERACTIVE)
    device.submit(viewer)
    device.finish(running)
    assert viewer in device.start().items


def test_an_interactive_item_that_arrives_while_interactive_runs_goes_before_the_staged_slice():
    device = Device(a=0.01, max_batch_cost=10)
    device.submit(*(work(INTERACTIVE, bucket=LARGE, cost=10) for _ in "ab"), *(work(BULK) for _ in range(50)))
    device.step()
    device.step()
    _, staged = device.start(), device.start()
    device.submit(work(INTERACTIVE, bucket=LARGE))
    device.scheduler.unstage(staged)
    assert (staged.is_slice, device.start().is_slice) == (True, False)


def test_a_client_that_asks_again_once_it_is_answered_does_not_starve_bulk():
    device = Device(max_batch_cost=4)
    device.submit(*(work(BULK) for _ in range(4)))
    while not device.device_s(BULK) and len(device.ran) < 20:
        device.submit(work(INTERACTIVE, bucket=LARGE))
        device.step()
    assert len(device.ran) == 2


def test_a_tie_goes_to_interactive():
    device = Device()
    device.submit(work(BULK), work(INTERACTIVE, bucket=LARGE))
    assert not device.step().is_slice


def test_bulk_that_wakes_has_no_claim_on_the_time_it_slept():
    device = Device(a=2**-7, max_batch_cost=1)  # a power of two: no rounding, so ties are ties
    device.submit(*(work(INTERACTIVE) for _ in range(100)))
    for _ in range(80):
        device.step()
    device.submit(*(work(BULK) for _ in range(10)))
    assert [device.step().is_slice for _ in range(12)] == [False, True, *[False] * 8, True, False]


def test_device_time_is_charged_by_share_of_cost():
    device = Device(max_batch_cost=10, rules=Rules(bulk_fill_s=1.0))
    device.submit(work(INTERACTIVE, cost=4), *(work(BULK, cost=2) for _ in range(3)))
    assert device.step().shares == {INTERACTIVE: 0.4, BULK: 0.6}


def test_a_batch_that_failed_is_charged_but_not_learnt_from():
    device = Device(max_batch_cost=4)
    device.submit(*(work(INTERACTIVE) for _ in range(8)), work(BULK, bucket=LARGE))
    device.scheduler.done(device.start(), 5.0, representative=False)
    assert (device.scheduler.model(SMALL).estimate(1), device.step().is_slice) == (0.01, True)


# What the service promises


@pytest.mark.parametrize("staging", [False, True])
def test_a_viewer_behind_a_job_of_400_tiles_waits_for_one_slice(staging):
    device = Device(a=0.009, max_batch_cost=4)
    device.submit(*(work(BULK, "job") for _ in range(400)))
    running, viewer = device.start(), work(INTERACTIVE, "viewer")
    staged = device.start() if staging else None
    device.submit(viewer)
    if staged:
        device.scheduler.unstage(staged)
    batches = [device.finish(running), *device.drain()]
    order = [item for batch in batches for item in batch.items]
    assert order.index(viewer) == 4  # a FIFO would serve it as number 400
    assert len(order) == 401


def test_seconds_ahead_are_what_a_class_then_waits():
    device = Device(b=0.003, max_batch_cost=8, rules=Rules(bulk_slice_s=0.05))
    device.submit(*(work(INTERACTIVE) for _ in range(400)), *(work(BULK, bucket=LARGE) for _ in range(400)))
    expected, waited = {}, {}
    for one in (INTERACTIVE, BULK):
        expected[one] = device.scheduler.seconds_ahead(one)
    while device.scheduler.backlog():
        lead = INTERACTIVE if not device.step().is_slice else BULK
        waited[lead] = device.now
    assert waited == pytest.approx(expected, abs=0.09)


def test_seconds_ahead_count_an_item_a_batch_where_no_two_fit_a_slice():
    device = Device(a=0.01, b=0.2)
    device.submit(*(work() for _ in range(3)))
    assert device.scheduler.seconds_ahead(BULK) == pytest.approx(3 * 0.21)


def test_what_runs_is_ahead_of_everybody():
    device = Device(a=0.01, max_batch_cost=4)
    device.submit(*(work(INTERACTIVE) for _ in range(4)))
    device.start()
    assert device.scheduler.seconds_ahead(BULK) == 0.04


@pytest.mark.parametrize("rule", ["interactive_weight", "bulk_weight", "quantum"])
def test_rules_by_which_nothing_would_ever_be_served_are_refused(rule):
    with pytest.raises(ValueError, match="must be positive"):
        Rules(**{rule: 0.0})


def test_ten_thousand_tenants_leave_no_trace():
    device, sizes = Device(), []
    device.submit(*(work(tenant="stays") for _ in range(3)))
    for visitors in (100, 10_000):
        for number in range(visitors):
            visit = work(INTERACTIVE, f"a{number}"), work(BULK, f"b{number}"), work(BULK, f"c{number}")
            device.submit(work(tenant="stays"), *visit)
            device.step(free_slots=2)
            device.scheduler.cancel([item.id for item in visit])
            device.step(free_slots=1)
        sizes.append(len(pickle.dumps(device.scheduler)))
        device.ran.clear()
    assert device.scheduler.tenants(BULK) == 1
    assert sizes[1] < 1.5 * sizes[0]


def test_deadlines_of_ten_thousand_items_long_gone_take_no_room():
    first = work(deadline=1.0)
    items = {first.id: first}
    deadlines = Deadlines(items)
    deadlines.add(first)
    for _ in range(10_000):
        item = work()
        items[item.id] = item
        deadlines.add(item)
        del items[item.id]
    assert deadlines.earliest() == (1.0, 0.0)
    assert len(pickle.dumps(deadlines)) < 10_000
