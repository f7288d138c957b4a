"""A device that takes as long as it says, before it a scheduler, and work for both."""

from __future__ import annotations

import itertools

from app.serving.costs import CostModel
from app.serving.rules import Rules
from app.serving.scheduler import Pick, Scheduler
from app.serving.work import Batch, Bucket, Work, WorkClass

INTERACTIVE, BULK = WorkClass.INTERACTIVE, WorkClass.BULK
SMALL, LARGE, OTHER = Bucket("one@1", 1, 256), Bucket("one@1", 1, 512), Bucket("two@1", 3, 256)
LONG_S = 1e6  # nobody in these tests waits for so long
_ids = itertools.count()


def work(
    work_class: WorkClass = BULK,
    tenant: str = "t",
    bucket: Bucket = SMALL,
    cost: float = 1.0,
    deadline: float = LONG_S,
    enqueued: float = 0.0,
    request: int = 0,
) -> Work:
    """One item with an id of its own."""
    return Work(next(_ids), tenant, work_class, bucket, cost, deadline, enqueued, request)


class Device:
    """Runs what its scheduler picks in exactly `a * cost + b` seconds of its own clock."""

    def __init__(self, a: float = 0.01, b: float = 0.0, max_batch_cost: float = 16, rules: Rules | None = None) -> None:
        self.a, self.b, self.now = a, b, 0.0
        self.scheduler = Scheduler(rules)
        for bucket in (SMALL, LARGE, OTHER):
            self.scheduler.calibrate(bucket, CostModel(a, b, max_batch_cost))
        self.ran: list[Batch] = []

    def submit(self, *items: Work) -> None:
        self.scheduler.submit(items)

    def pick(self, free_slots: int = 10_000) -> Pick:
        return self.scheduler.pick(self.now, free_slots)

    def start(self, free_slots: int = 10_000) -> Batch:
        """Pick a batch; wait for company if that is what the scheduler wants."""
        pick = self.pick(free_slots)
        if pick.wait_until is not None:
            self.now = pick.wait_until
            pick = self.pick(free_slots)
        assert pick.batch is not None
        return pick.batch

    def finish(self, batch: Batch) -> Batch:
        elapsed = self.a * batch.cost + self.b
        self.now += elapsed
        self.scheduler.done(batch, elapsed)
        self.ran.append(batch)
        return batch

    def step(self, free_slots: int = 10_000) -> Batch:
        return self.finish(self.start(free_slots))

    def drain(self) -> list[Batch]:
        """Run until nothing is queued."""
        ran = []
        while self.scheduler.backlog():
            ran.append(self.step())
        return ran

    def device_s(self, work_class: WorkClass) -> float:
        """Seconds that the device worked for a class."""
        return sum((self.a * batch.cost + self.b) * batch.shares[work_class] for batch in self.ran)

    def cost_of(self, tenant: str, request: int | None = None) -> float:
        """Cost that was run for a tenant, or for one of its requests."""
        items = [item for batch in self.ran for item in batch.items if item.tenant == tenant]
        return sum(item.cost for item in items if request in (None, item.request))
