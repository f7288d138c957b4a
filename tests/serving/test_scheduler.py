"""Whatever callers do: every item leaves once, nothing dead runs, batches keep their limits, counters tell the truth.

A state machine submits, cancels, picks, stages, finishes, unstages and lets time pass in any order, with a device
whose speed is not quite what the calibration said. What a reader should believe of `pick` is written in `_check_batch`.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.serving.costs import CostModel
from app.serving.rules import Rules
from app.serving.scheduler import Backlog, Pick, Scheduler
from app.serving.work import Batch, Work, WorkClass
from tests.serving.simulated import BULK, INTERACTIVE, LARGE, OTHER, SMALL, work

RULES = Rules(bulk_slice_s=0.06)
TRUE_A, TRUE_B, MAX_COST = 0.012, 0.004, 8.0
HAIR = 1e-9  # sums of floats in another order

orders = st.tuples(
    st.sampled_from(WorkClass),
    st.sampled_from("abc"),
    st.sampled_from([SMALL, LARGE, OTHER]),
    st.sampled_from([0.25, 1.0, 1.0, 3.0, 6.0, 40.0]),
    st.sampled_from([0.0, 0.05, 0.5, 5.0, 600.0]),
    st.integers(1, 3),
)


def flow(item: Work) -> tuple[object, ...]:
    return item.work_class, item.bucket, item.tenant, item.request


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.scheduler = Scheduler(RULES)
        for bucket in (SMALL, LARGE, OTHER):
            self.scheduler.calibrate(bucket, CostModel(0.010, 0.005, MAX_COST))
        self.submitted: set[int] = set()
        self.queued: dict[int, Work] = {}  # in order of arrival
        self.flying: list[Batch] = []
        self.unwanted: set[int] = set()
        self.ends: list[int] = []

    @rule(wanted=st.lists(orders, min_size=1, max_size=12))
    def submit(self, wanted):
        items = [work(*what, self.now + patience, self.now, number) for *what, patience, number in wanted]
        self.scheduler.submit(items)
        self.queued.update((item.id, item) for item in items)
        self.submitted.update(item.id for item in items)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def cancel(self, data):
        ids = data.draw(st.lists(st.sampled_from(sorted(self.submitted)), max_size=5))
        flying = {item.id for batch in self.flying for item in batch.items}
        cancelled = self.scheduler.cancel(ids)
        assert {item.id for item in cancelled.queued} == set(ids) & set(self.queued)
        assert {item.id for item in cancelled.in_flight} == (set(ids) & flying) - self.unwanted
        self.unwanted |= set(ids) & flying
        self._leave(cancelled.queued)

    @rule(slots=st.integers(0, 12))
    def pick(self, slots):
        self._picked(self.scheduler.pick(self.now, slots), slots)

    @precondition(lambda self: self.flying)
    @rule(slots=st.integers(1, 12))
    def stage(self, slots):
        before = dict(self.queued)
        pick = self.scheduler.pick(self.now, slots, full=True)
        self._picked(pick, slots, full=True)
        if pick.batch is not None and len(pick.batch.items) < slots:
            lead = pick.batch.items[0].work_class
            alike = [i for i in before.values() if (i.work_class, i.bucket) == (lead, pick.batch.bucket)]
            estimate = self.scheduler.model(pick.batch.bucket).estimate
            cost = sum(item.cost for item in pick.batch.items if item.work_class is lead)
            more = cost + max(item.cost for item in alike)
            assert more > MAX_COST - HAIR or (lead is BULK and estimate(more) > RULES.bulk_slice_s - HAIR)

    @precondition(lambda self: self.flying)
    @rule(slowness=st.sampled_from([1.0, 1.0, 1.0, 1.3, 50.0]), representative=st.booleans())
    def done(self, slowness, representative):
        batch = self.flying.pop(0)
        assert self.scheduler.is_unwanted(batch) == ({item.id for item in batch.items} <= self.unwanted)
        elapsed = slowness * (TRUE_A * batch.cost + TRUE_B)
        self.now += elapsed
        self.scheduler.done(batch, elapsed, representative)
        self.ends += [item.id for item in batch.items]

    @precondition(lambda self: self.flying)
    @rule()
    def unstage(self):
        batch = self.flying.pop()
        left = self.scheduler.unstage(batch)
        assert {item.id for item in left} == {item.id for item in batch.items} & self.unwanted
        back = {item.id: item for item in batch.items if item.id not in self.unwanted}
        self.queued = back | self.queued
        self.ends += [item.id for item in left]

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1.0, 100.0]))
    def advance(self, seconds):
        self.now += seconds

    @invariant()
    def counters_equal_a_recount(self):
        counts: Counter[tuple[object, object]] = Counter()
        costs: Counter[tuple[object, object]] = Counter()
        for item in self.queued.values():
            counts[item.work_class, item.bucket] += 1
            costs[item.work_class, item.bucket] += item.cost
        assert self.scheduler.backlog() == {key: Backlog(counts[key], costs[key]) for key in counts}

    @invariant()
    def queries_equal_a_recount(self):
        for one in WorkClass:
            mine = [item for item in self.queued.values() if item.work_class is one]
            assert self.scheduler.queued(one) == Backlog(len(mine), sum(item.cost for item in mine))
            assert self.scheduler.tenants(one) == len({item.tenant for item in mine})
            assert self.scheduler.oldest_age(one, self.now) == max((self.now - i.enqueued for i in mine), default=0)
            assert self.scheduler.running(one) == sum(i.work_class is one for b in self.flying for i in b.items)

    def teardown(self):
        """Left alone, the device serves all that is left; each item ended once, and nothing of it is kept."""
        for _ in range(3 * len(self.submitted) + 3):
            pick = self.scheduler.pick(self.now, 12)
            self._picked(pick, 12)
            self.now = pick.wait_until or self.now
            while self.flying:
                self.done(1.0, True)
        assert sorted(self.ends) == sorted(self.submitted)
        assert self.scheduler.backlog() == {}

    def _picked(self, pick: Pick, slots: int, full: bool = False) -> None:
        assert {item.id for item in pick.lost} == {item.id for item in self.queued.values() if self._is_dead(item)}
        self._leave(pick.lost)
        if pick.batch is not None:
            assert pick.wait_until is None
            self._check_batch(pick.batch, slots)
            self.flying.append(pick.batch)
            for item in pick.batch.items:
                del self.queued[item.id]
        elif pick.wait_until is not None:
            assert pick.wait_until > self.now
            assert not self.flying
            assert {item.work_class for item in self.queued.values()} == {BULK}
        else:
            assert full or slots == 0 or not self.queued

    def _check_batch(self, batch: Batch, slots: int) -> None:
        assert all(item is self.queued.get(item.id) for item in batch.items)
        assert {item.bucket for item in batch.items} == {batch.bucket}
        assert 1 <= len(batch.items) <= slots
        assert batch.cost <= MAX_COST or len(batch.items) == 1
        self._check_time(batch)
        self._check_order(batch)

    def _check_time(self, batch: Batch) -> None:
        """Bulk alone fits a slice; beside interactive work it adds no more than the rules allow."""
        estimate = self.scheduler.model(batch.bucket).estimate
        if batch.is_slice:
            assert batch.estimate_s <= RULES.bulk_slice_s + HAIR or len(batch.items) == 1
        elif batch.shares[BULK]:
            alone = estimate(sum(item.cost for item in batch.items if item.work_class is INTERACTIVE))
            assert estimate(batch.cost) <= alone + RULES.bulk_fill_s + HAIR

    def _check_order(self, batch: Batch) -> None:
        """The items of one request go in order of arrival."""
        for one in {flow(item) for item in batch.items}:
            mine = [item for item in self.queued.values() if flow(item) == one]
            taken = [item for item in batch.items if flow(item) == one]
            assert taken == mine[: len(taken)]

    def _is_dead(self, item: Work) -> bool:
        return self.now + self.scheduler.model(item.bucket).estimate(item.cost) > item.deadline

    def _leave(self, items: tuple[Work, ...]) -> None:
        for item in items:
            del self.queued[item.id]
            self.ends.append(item.id)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
