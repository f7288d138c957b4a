"""Which patches does the device see next?

class -> bucket -> tenant -> request -> queue. `pick` goes down that tree:

1. Items that can no longer be answered in time leave the queue                   (app.serving.deadlines).
2. The class that has had less of the device for its weight goes next             (app.serving.turns).
3. Of its buckets, the one that was served less for those who wait in it          (app.serving.turns).
4. Tenants take turns there, and the requests of each, paying with cost,
   until the batch is full                                                        (app.serving.ring);
   room that interactive work leaves goes to bulk work of the same bucket.
5. Bulk never holds the device for longer than a slice, a shorter one while
   interactive work comes                                                         (app.serving.costs).
6. While the device is busy the queue makes the batches; an idle one waits a moment for company, bulk only.
7. A full batch may be picked while another runs; `unstage` puts it back if something more urgent arrives.

Nothing here reads a clock, sleeps, locks or touches an array: time comes in as an argument, and whoever shares a
scheduler between threads holds a lock. Every item submitted leaves exactly once: in a batch, as lost to its deadline
(both from `pick`), or as cancelled (from `cancel` or `unstage`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from app.serving.costs import CostModel
from app.serving.inflight import InFlight
from app.serving.lane import Lane
from app.serving.rules import Rules
from app.serving.turns import BucketTurns, Turns
from app.serving.work import Batch, Bucket, Work, WorkClass

INTERACTIVE, BULK = WorkClass.INTERACTIVE, WorkClass.BULK


@dataclass(frozen=True, slots=True)
class Pick:
    """What came of a `pick`.

    Attributes:
        batch: to be run, or None.
        wait_until: look again then, if nothing is submitted before; None: not before something changes.
        lost: left the queue, because they cannot be answered before their deadline.
    """

    batch: Batch | None = None
    wait_until: float | None = None
    lost: tuple[Work, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What came of a `cancel`: items that left the queue, and items in a batch, whose results nobody wants now."""

    queued: tuple[Work, ...]
    in_flight: tuple[Work, ...]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is queued: items, and their cost."""

    count: int
    cost: float


class Scheduler:
    """The queue before one device. All times are seconds on one monotonic clock of the caller's.

    Attributes:
        rules: the numbers that it works by; the slice and the waits may be changed at any time.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        """An empty queue; buckets must be calibrated before they are used."""
        self.rules = rules or Rules()
        self._models: dict[Bucket, CostModel] = {}
        self._lanes: dict[WorkClass, dict[Bucket, Lane]] = {one: {} for one in WorkClass}
        self._queued: dict[int, Work] = {}
        self._in_flight = InFlight()
        self._turns = Turns({INTERACTIVE: self.rules.interactive_weight, BULK: self.rules.bulk_weight})
        self._bucket_turns = {one: BucketTurns() for one in WorkClass}
        self._serial = count()
        self._watched_until = -math.inf
        self._is_watched = False

    def calibrate(self, bucket: Bucket, model: CostModel) -> None:
        """Say how long a bucket's batches take, first or anew; the scheduler refines it from then on."""
        self._models[bucket] = model

    def model(self, bucket: Bucket) -> CostModel:
        """What is known of a bucket; `max_batch_cost` may be changed, say halved when memory ran out.

        Raises:
            KeyError: it was not calibrated.
        """
        return self._models[bucket]

    @property
    def buckets(self) -> Iterable[Bucket]:
        """All that were calibrated."""
        return self._models.keys()

    def is_queued(self, item_id: int) -> bool:
        """Whether an item waits."""
        return item_id in self._queued

    def submit(self, items: Iterable[Work]) -> None:
        """Queue items: all, or none.

        Raises:
            ValueError: an id is queued or running already, or a bucket is not calibrated.
        """
        fresh = {}
        for item in items:
            if item.id in self._queued or item.id in self._in_flight or item.id in fresh:
                raise ValueError(f"item {item.id} is here already")
            if item.bucket not in self._models:
                raise ValueError(f"{item.bucket} is not calibrated")
            fresh[item.id] = item
        for item in fresh.values():
            if self._is_idle(item.work_class):
                self._turns.wake(item.work_class)
            self._lane(item).add(item)
            if item.work_class is INTERACTIVE:
                self._watched_until = max(self._watched_until, item.enqueued + self.rules.watched_s)
        self._queued.update(fresh)

    def cancel(self, ids: Iterable[int]) -> Cancelled:
        """Nobody wants these any more: queued ones leave now, those in a batch are unwanted; others are ignored."""
        queued, in_flight = [], []
        for one in ids:
            if item := self._queued.pop(one, None):
                self._lane(item).remove(item)
                self._close_if_empty(self._lane(item))
                queued.append(item)
            elif item := self._in_flight.cancel(one):
                in_flight.append(item)
        return Cancelled(tuple(queued), tuple(in_flight))

    def pick(self, now: float, free_slots: int, full: bool = False) -> Pick:
        """The next batch, which counts as running from now on until `done` or `unstage`.

        Args:
            now: the time.
            free_slots: the most items that the batch may hold; 0 or less: none.
            full: whether it is only wanted if nothing that arrives could join it.
        """
        self._is_watched = now < self._watched_until
        lost = self._drop_lost(now)
        if free_slots < 1 or not self._queued:
            return Pick(lost=lost)
        lane = self._next_lane()
        if full and not self._is_full(lane, free_slots):
            return Pick(lost=lost)
        if (until := self._wait_until(lane, free_slots)) > now:
            return Pick(wait_until=until, lost=lost)
        self._turns.picked(lane.work_class)
        return Pick(batch=self._send(lane, free_slots), lost=lost)

    def done(self, batch: Batch, elapsed: float, representative: bool = True) -> None:
        """The device is through with a batch.

        Args:
            batch: as `pick` gave it.
            elapsed: seconds that the device was busy with it.
            representative: whether its time says something of the next one's; False if it failed or was ended early.

        Raises:
            KeyError: the batch is not in flight.
        """
        self._in_flight.land(batch)
        self._turns.charge(batch, elapsed)
        if representative:
            self._models[batch.bucket].learn(batch.cost, elapsed)

    def unstage(self, batch: Batch) -> tuple[Work, ...]:
        """Put a batch that never started back to the head of its queues, in its order.

        Returns:
            Its items that were cancelled meanwhile; they leave.

        Raises:
            KeyError: the batch is not in flight.
        """
        unwanted = self._in_flight.land(batch)
        wanted = [item for item in batch.items if item not in unwanted]
        for one in WorkClass:
            if mine := [item for item in wanted if item.work_class is one]:
                self._bucket_turns[one].give_back(self._lane(mine[0]), mine)
        self._queued.update((item.id, item) for item in wanted)
        return unwanted

    def is_unwanted(self, batch: Batch) -> bool:
        """Whether every item of a batch in flight was cancelled, so that it may be ended early."""
        return self._in_flight.is_unwanted(batch)

    # What admission and the metrics ask.

    def backlog(self) -> dict[tuple[WorkClass, Bucket], Backlog]:
        """What is queued per class and bucket; those with nothing queued are absent."""
        return {(lane.work_class, lane.bucket): Backlog(len(lane), lane.cost) for lane in self._all_lanes()}

    def queued(self, work_class: WorkClass) -> Backlog:
        """What is queued of a class."""
        lanes = self._lanes[work_class].values()
        return Backlog(sum(map(len, lanes)), sum(lane.cost for lane in lanes))

    def tenants(self, work_class: WorkClass) -> int:
        """Tenants with something of a class queued."""
        return len(set().union(*(lane.tenants for lane in self._lanes[work_class].values())))

    def oldest_age(self, work_class: WorkClass, now: float) -> float:
        """Seconds that the oldest queued item of a class has waited; 0 if there is none."""
        return max((now - lane.oldest for lane in self._lanes[work_class].values()), default=0.0)

    def running(self, work_class: WorkClass) -> int:
        """Items of a class that were picked and are not done."""
        return self._in_flight.count(work_class)

    def seconds_ahead(self, work_class: WorkClass) -> float:
        """Estimated seconds until what is now queued of a class is done.

        Counts what is in flight, and what the other class is served meanwhile.
        """
        own, others = (sum(map(self._lane_s, self._lanes[one].values())) for one in (work_class, work_class.other))
        in_flight = sum(batch.estimate_s for batch in self._in_flight)
        return in_flight + self._turns.seconds_until_done(own, others, work_class)

    # The steps of a pick.

    def _drop_lost(self, now: float) -> tuple[Work, ...]:
        lost: list[Work] = []
        for lane in list(self._all_lanes()):
            lost += lane.take_lost(now, self._models[lane.bucket].estimate)
            self._close_if_empty(lane)
        for item in lost:
            del self._queued[item.id]
        return tuple(lost)

    def _next_lane(self) -> Lane:
        waiting = [one for one, lanes in self._lanes.items() if lanes]
        work_class = self._turns.next(waiting, self._in_flight)
        lanes = self._lanes[work_class]
        return lanes[self._bucket_turns[work_class].next(lanes)]

    def _wait_until(self, lane: Lane, free_slots: int) -> float:
        """When a batch of this lane should start; the past if there is no reason to wait."""
        # Company helps a batch that has room for it, if there is nothing else to do.
        if self._in_flight or len(lane) < len(self._queued) or self._is_full(lane, free_slots):
            return -math.inf
        until = lane.oldest + self.rules.wait_s(lane.work_class)
        end = until + self._models[lane.bucket].estimate(lane.cost)
        return until if end <= lane.earliest[0] else -math.inf

    def _is_full(self, lane: Lane, free_slots: int) -> bool:
        return len(lane) >= free_slots or lane.cost + lane.head().cost > self._room(lane)

    def _send(self, lane: Lane, free_slots: int) -> Batch:
        model = self._models[lane.bucket]
        room = max(self._room(lane), lane.head().cost)
        items = self._bucket_turns[lane.work_class].take(lane, room, free_slots)
        if lane.work_class is INTERACTIVE and (bulk := self._lanes[BULK].get(lane.bucket)):
            room = min(model.max_batch_cost - sum(i.cost for i in items), self.rules.bulk_fill_s / model.a)
            items += self._bucket_turns[BULK].take(bulk, room, free_slots - len(items))
            self._close_if_empty(bulk)
        self._close_if_empty(lane)
        batch = Batch(next(self._serial), lane.bucket, tuple(items), model.estimate(sum(item.cost for item in items)))
        self._in_flight.add(batch)
        for item in items:
            del self._queued[item.id]
        return batch

    def _room(self, lane: Lane) -> float:
        """The most that a batch led by this lane may cost, if it is not a single item."""
        model = self._models[lane.bucket]
        if lane.work_class is INTERACTIVE:
            return model.max_batch_cost
        slice_s = self.rules.bulk_slice_s * (self.rules.watched_share if self._is_watched else 1.0)
        return min(model.max_batch_cost, model.cost_within(slice_s))

    def _lane(self, item: Work) -> Lane:
        lanes = self._lanes[item.work_class]
        if item.bucket not in lanes:
            self._bucket_turns[item.work_class].wake(item.bucket, lanes)
            lanes[item.bucket] = Lane(item.work_class, item.bucket, self.rules.quantum)
        return lanes[item.bucket]

    def _close_if_empty(self, lane: Lane) -> None:
        if not lane:
            del self._lanes[lane.work_class][lane.bucket]

    def _all_lanes(self) -> Iterator[Lane]:
        for lanes in self._lanes.values():
            yield from lanes.values()

    def _is_idle(self, work_class: WorkClass) -> bool:
        return not self._lanes[work_class] and not self.running(work_class)

    def _lane_s(self, lane: Lane) -> float:
        """Estimated seconds for all of a lane, in batches as full as they may be."""
        model = self._models[lane.bucket]
        room = max(self._room(lane), lane.cost / len(lane))
        return model.a * lane.cost + model.b * math.ceil(lane.cost / room)
