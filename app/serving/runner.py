"""Who owns the device? One thread: it takes what the scheduler picks, runs it, and hands the maps back.

Requests come from other threads with patches and wait on a `Tray`. One lock guards scheduler and trays; the device
works outside it. Between batches the thread does chores (a model proves itself, a batch size is measured), and after
a minute without work it gives memory back. On a GPU the next full batch is brought over while one runs
(`app.serving.staging`); on a CPU there is no copying that could overlap.

The thread does not die unseen: whatever it did not expect, and a device that stays broken, becomes `fault`; from then
on everything is refused, and liveness fails.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from app.nuclei.errors import Abandoned, DeviceFault, Draining, InferenceFailed
from app.nuclei.types import UInt8
from app.serving.costs import CostModel
from app.serving.desk import Desk, Job
from app.serving.device import DeviceEngine
from app.serving.execution import FAILED, Attempt
from app.serving.faults import Fault, fault_of
from app.serving.memory import give_back
from app.serving.scheduler import Cancelled, Scheduler
from app.serving.staging import Prepared, Stage
from app.serving.tray import Ticket, Tray
from app.serving.watching import Ran, Watcher
from app.serving.work import Batch, Bucket

T = TypeVar("T")
IDLE_S = 60.0
RECENT = 0.1  # weight of the newest batch in the moving rate
BROKEN = "the device of this service is broken; another one may take the request"
STOPPING = "this service is stopping; another one may take the request"


class Runner:
    """The device's thread and the queue before it.

    Attributes:
        clock: monotonic seconds, in which deadlines are given.
        fault: why the device or its thread is broken; None while they are well.
        longest_s: of all batches so far.
        cost_per_s: at which full batches are done, lately: small ones say little of how fast a queue empties.
    """

    def __init__(
        self,
        watcher: Watcher | None = None,
        clock: Callable[[], float] = time.monotonic,
        idle_s: float = IDLE_S,
    ) -> None:
        """No thread yet: see `start`.

        Args:
            watcher: told what happens.
            clock: monotonic seconds.
            idle_s: after so long without work memory is given back.
        """
        self.clock = clock
        self.fault: str | None = None
        self.longest_s = 0.0
        self.cost_per_s = 0.0
        self._watcher = watcher or Watcher()
        self._idle_s = idle_s
        self._changed = threading.Condition(threading.RLock())
        self._desk = Desk(Scheduler())
        self._stage = Stage(self._desk, clock)
        self._chores: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._busy = False
        self._running: tuple[Batch, DeviceEngine] | None = None
        self._moved = clock()
        self._warm: WeakSet[DeviceEngine] = WeakSet()  # a model that left memory must not stay for this
        self._stopped: Exception | None = None
        self._thread = threading.Thread(target=self._live, name="karyon-device", daemon=True)

    # What requests do, from any thread.

    def submit(self, ticket: Ticket, job: Job, patches: Iterable[UInt8]) -> Tray:
        """Queue patches, each (P, P, 3), all or none; a ticket holds one tray at a time.

        Raises:
            Abandoned: the ticket was cancelled.
            DeviceFault, Draining: nothing runs here any more.
        """
        with self._changed:
            now = self._arrive()
            if ticket.cancelled:
                raise Abandoned
            tray = self._desk.submit(ticket, job, patches, now)
            self._stage.arrived(ticket.work_class)
            self._stage.fill(self._running[1] if self._running else None)
            self._changed.notify_all()
            return tray

    def cancel(self, ticket: Ticket) -> None:
        """Nobody wants this ticket's work: what is queued never runs, a batch of such work alone is ended."""
        with self._changed:
            gone = self._desk.abandon(ticket)
            self._end_if_unwanted(gone)
        self._watcher.cancelled(len(gone.queued), len(gone.in_flight))

    def do(self, chore: Callable[[], T]) -> T:
        """Run a chore in the device's thread, before the next batch; returns what it returns or raises.

        Raises:
            DeviceFault, Draining: nothing runs here any more.
        """
        future: Future[T] = Future()
        with self._changed:
            self._arrive()
            self._chores.append((future, chore))
            self._changed.notify_all()
        return future.result()

    def calibrate(self, bucket: Bucket, model: CostModel) -> None:
        """Say how long a bucket's batches take and how large they may be."""
        with self._changed:
            self._desk.calibrate(bucket, model)
            self.cost_per_s = self.cost_per_s or model.cost_per_s

    def slice_bulk(self, seconds: float, watched_share: float = 1.0) -> None:
        """Let a batch of bulk work take so long at most; this share of it while interactive work comes."""
        with self._changed:
            scheduler = self._desk.scheduler
            scheduler.rules = replace(scheduler.rules, bulk_slice_s=seconds, watched_share=watched_share)

    def buckets(self) -> tuple[Bucket, ...]:
        """All that were calibrated."""
        with self._changed:
            return tuple(self._desk.scheduler.buckets)

    def ask(self, question: Callable[[Scheduler], T]) -> T:
        """Ask the scheduler something, for admission and metrics; it must not be changed."""
        with self._changed:
            return question(self._desk.scheduler)

    # What the process does.

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, error: Exception | None = None) -> None:
        """Refuse all that is queued and all that comes, with this error; what runs is finished."""
        with self._changed:
            self._stopped = self._stopped or error or Draining(STOPPING)
            self._stage.close()
            self._desk.refuse_queued(self._stopped)
            self._changed.notify_all()

    def abort(self) -> None:
        """Stop, and end what runs: it is refused as well."""
        with self._changed:
            self.stop()
            self.interrupt()

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()
        self._stage.drop()

    def interrupt(self) -> None:
        """End the run that is going on: it takes too long."""
        with self._changed:
            if self._running:
                self._running[1].terminate()

    def stalled_s(self) -> float:
        """Seconds without progress: since work came or the last of it was done; 0 if there is none."""
        with self._changed:
            return self.clock() - self._moved if self._has_work() else 0.0

    @property
    def healthy(self) -> bool:
        """Whether the thread lives and its device works; one that has not begun, or was stopped, is well."""
        begun = self._thread.ident is not None
        return self.fault is None and (self._thread.is_alive() or not begun or self._stopped is not None)

    # The thread.

    def _live(self) -> None:
        try:
            while (step := self._next()) is not None:
                step()
                with self._changed:
                    self._busy, self._moved = False, self.clock()
        except BaseException as error:  # no one joins this thread: what kills it must be told
            self._break(error)

    def _next(self) -> Callable[[], None] | None:
        """What to do now, None at the end; waits for it."""
        with self._changed:
            while True:
                self._busy = True
                if self._chores:
                    return partial(_fulfil, *self._chores.popleft())
                now = self.clock()
                if prepared := self._stage.take():
                    return self._begin(prepared.batch, prepared)
                pick = self._desk.pick(now)
                if pick.batch:
                    return self._begin(pick.batch)
                if self._stopped or self.fault:
                    return None
                until = pick.wait_until
                if until is None and self._warm:
                    until = self._moved + self._idle_s
                    if until <= now:
                        return self._shrink
                self._busy = False
                self._changed.wait(None if until is None else max(0.0, until - now))

    def _begin(self, batch: Batch, prepared: Prepared | None = None) -> Callable[[], None]:
        job = self._desk.begin(batch, self.clock())
        self._running = (batch, job.engine)
        self._warm.add(job.engine)
        self._stage.fill(job.engine)
        return partial(self._run, batch, job, self._desk.patches(batch), prepared)

    def _run(self, batch: Batch, job: Job, patches: list[UInt8], prepared: Prepared | None) -> None:
        attempt, broken, began = Attempt(job.engine, job.views), None, self.clock()
        try:
            attempt.run(patches, prepared.copy if prepared else None)
        except Exception as error:
            broken = error if fault_of(error) is Fault.STICKY else None
            reason = DeviceFault(BROKEN) if broken else self._stopped or InferenceFailed(FAILED)
            attempt.results += [reason] * (len(patches) - len(attempt.results))
        elapsed = self.clock() - began
        with self._changed:
            job.engine.resume()  # a flag that was raised too late must not end the next run
            self._running = None
            self._desk.land(batch, attempt, elapsed)
            model = self._desk.scheduler.model(batch.bucket)
            limit = model.max_batch_cost
            if not attempt.faulty:
                self.longest_s = max(self.longest_s, elapsed)
                self.cost_per_s += RECENT * (model.cost_per_s - self.cost_per_s)
        padding = 1 - len(patches) / job.engine.padded(len(patches))
        short, rebuilt, copied_s = len(attempt.short), attempt.rebuilt, attempt.copied_s
        self._watcher.ran(Ran(batch, job.engine.device, elapsed, limit, short, rebuilt, padding, copied_s))
        if broken:
            self._break(broken)

    def _shrink(self) -> None:
        give_back()
        for engine in list(self._warm):
            try:
                engine.shrink()
            except Exception as error:  # memory is kept; nothing else is lost
                self._watcher.kept_memory(error)
        self._warm.clear()

    def _break(self, error: BaseException) -> None:
        with self._changed:
            self.fault = f"{type(error).__name__}: {error}"
            self._stage.drop()
            self._desk.fail_all(DeviceFault(BROKEN))
            while self._chores:
                self._chores.popleft()[0].set_exception(DeviceFault(BROKEN))
            self._changed.notify_all()
        self._watcher.broke(error)

    # Under the lock.

    def _arrive(self) -> float:
        """The time at which work comes; progress is counted from it if there was nothing to do."""
        if self.fault is not None:
            raise DeviceFault(BROKEN)
        if self._stopped is not None:
            raise self._stopped
        now = self.clock()
        if not self._has_work():
            self._moved = now
        return now

    def _has_work(self) -> bool:
        return bool(self._busy or self._desk or self._chores)

    def _end_if_unwanted(self, gone: Cancelled) -> None:
        if gone.in_flight and self._running and self._desk.scheduler.is_unwanted(self._running[0]):
            self._running[1].terminate()


def _fulfil(future: Future[Any], chore: Callable[[], Any]) -> None:
    try:
        future.set_result(chore())
    except Exception as error:
        future.set_exception(error)
