"""Which patch belongs on whose tray? The runner's books: what is queued, what runs, and who waits for it.

Nothing here locks, sleeps or touches the device: the runner holds its lock around every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from app.nuclei.errors import Abandoned, DeadlineExceeded
from app.nuclei.types import UInt8
from app.nuclei.views import View
from app.serving.costs import CostModel
from app.serving.device import DeviceEngine
from app.serving.execution import Attempt
from app.serving.safety import SafeSize
from app.serving.scheduler import Cancelled, Pick, Scheduler
from app.serving.tray import Ticket, Tray
from app.serving.work import Batch, Bucket, Work

MOST_PATCHES = 128
TOO_LATE = "the deadline passed, or could no longer be kept, while the request waited for the device"


@dataclass(frozen=True, slots=True)
class Job:
    """What runs the patches of one call: an engine, the views that are averaged, the bucket and a patch's cost."""

    engine: DeviceEngine
    views: Sequence[View]
    bucket: Bucket
    cost: float


@dataclass(frozen=True, slots=True)
class Slip:
    """What a queued patch needs when its turn comes."""

    tray: Tray
    job: Job
    patch: UInt8


class Desk:
    """A scheduler, and the patches and trays behind its items."""

    def __init__(self, scheduler: Scheduler) -> None:
        """Nothing queued."""
        self.scheduler = scheduler
        self._slips: dict[int, Slip] = {}
        self._sizes: dict[Bucket, SafeSize] = {}
        self._ids = count()

    def __bool__(self) -> bool:
        return bool(self._slips)

    def calibrate(self, bucket: Bucket, model: CostModel) -> None:
        """Say how long a bucket's batches take and how large they may be."""
        self.scheduler.calibrate(bucket, model)
        self._sizes.pop(bucket, None)

    def submit(self, ticket: Ticket, job: Job, patches: Iterable[UInt8], now: float) -> Tray:
        """Queue patches, all or none."""
        by_id = {next(self._ids): patch for patch in patches}
        ticket.tray = tray = Tray(by_id)
        whose = (ticket.tenant, ticket.work_class, job.bucket, job.cost, ticket.deadline, now, ticket.request)
        self.scheduler.submit(Work(one, *whose) for one in by_id)
        self._slips |= {one: Slip(tray, job, patch) for one, patch in by_id.items()}
        return tray

    def pick(self, now: float, full: bool = False) -> Pick:
        """What runs next; patches that are too late leave, and with them the rest of their call.

        Args:
            now: the time.
            full: whether a batch is only wanted if nothing that arrives could join it.
        """
        pick = self.scheduler.pick(now, MOST_PATCHES, full)
        for item in pick.lost:
            self.give_up(self._slips.pop(item.id).tray, DeadlineExceeded(TOO_LATE))
        return pick

    def begin(self, batch: Batch, now: float) -> Job:
        """A batch that was picked starts; what runs it."""
        for item in batch.items:
            tray = self._slips[item.id].tray
            tray.began = now if tray.began is None else tray.began
        return self.job(batch)

    def unstage(self, batch: Batch) -> None:
        """A batch that was picked does not start: its patches are queued again, but for those nobody wants."""
        for item in self.scheduler.unstage(batch):
            del self._slips[item.id]

    def is_stale(self, batch: Batch, now: float) -> bool:
        """Whether a batch that was picked a while ago should not run as it is."""
        model = self.scheduler.model(batch.bucket)
        too_large = batch.cost > model.max_batch_cost and len(batch.items) > 1
        too_late = any(now + model.estimate(item.cost) > item.deadline for item in batch.items)
        return too_large or too_late or any(self._slips[item.id].tray.settled for item in batch.items)

    def job(self, batch: Batch) -> Job:
        """What runs a batch."""
        return self._slips[batch.items[0].id].job

    def patches(self, batch: Batch) -> list[UInt8]:
        """The patches of a batch, in order."""
        return [self._slips[item.id].patch for item in batch.items]

    def land(self, batch: Batch, attempt: Attempt, elapsed: float) -> None:
        """A batch is through: every result goes to whoever still waits for it."""
        self.scheduler.done(batch, elapsed, representative=not attempt.faulty)
        for item, result in zip(batch.items, attempt.results, strict=True):
            tray = self._slips.pop(item.id).tray
            if isinstance(result, Exception):
                self.give_up(tray, result)
            elif not tray.settled:
                tray.put(item.id, result)
        model = self.scheduler.model(batch.bucket)
        safe = self._sizes.setdefault(batch.bucket, SafeSize(model, batch.items[0].cost))
        for size in attempt.short:
            safe.short(size)
        if not attempt.faulty:
            safe.good()

    def give_up(self, tray: Tray, error: Exception) -> Cancelled:
        """A tray is not wanted, or cannot be filled: its other patches do not run either."""
        tray.fail(error)
        gone = self.scheduler.cancel(tray.ids)
        for item in gone.queued:
            del self._slips[item.id]
        return gone

    def abandon(self, ticket: Ticket) -> Cancelled:
        """Nobody wants this ticket's work now, or any that comes."""
        ticket.cancelled = True
        if ticket.tray is None or ticket.tray.settled:
            return Cancelled((), ())
        return self.give_up(ticket.tray, Abandoned())

    def refuse_queued(self, error: Exception) -> None:
        """Calls with patches that did not begin yet get this error."""
        for one, slip in list(self._slips.items()):
            if self.scheduler.is_queued(one):
                self.give_up(slip.tray, error)

    def fail_all(self, error: Exception) -> None:
        """Everybody gets this error; nothing runs any more."""
        for slip in list(self._slips.values()):
            self.give_up(slip.tray, error)
        self._slips.clear()
