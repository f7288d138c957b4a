"""Which batch is brought to the device while another one runs there, so that copying costs no time?

Only a full one, which nobody could join any more: while the device is busy the queue makes the batches, and one that
is taken early would stay small. A staged slice of bulk work gives way if an interactive patch arrives first, and so
does a batch that holds what nobody wants, what is too late by now, or what memory would no longer take.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from app.serving.desk import Desk
from app.serving.device import Copied, DeviceEngine
from app.serving.work import Batch, WorkClass


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is picked, and what brings it to the device."""

    batch: Batch
    copy: Future[Copied]


class Stage:
    """Room for one batch; its runner holds the lock around every call."""

    def __init__(self, desk: Desk, clock: Callable[[], float]) -> None:
        """Empty.

        Args:
            desk: whose batches are staged.
            clock: of the desk's deadlines.
        """
        self._desk = desk
        self._clock = clock
        self._copier = ThreadPoolExecutor(1, "karyon-copy")  # no thread before the first copy
        self._prepared: Prepared | None = None
        self._closed = False

    def fill(self, running: DeviceEngine | None) -> None:
        """Stage the next full batch, if there is one, the place is free and the device is busy and can do that."""
        if self._closed or self._prepared is not None or running is None or not running.stages:
            return
        batch = self._desk.pick(self._clock(), full=True).batch
        if batch is None:
            return
        job = self._desk.job(batch)
        if not job.engine.stages:  # a model on another device
            self._desk.unstage(batch)
            return
        patches = self._desk.patches(batch)
        self._prepared = Prepared(batch, self._copier.submit(job.engine.copy, patches, job.views))

    def arrived(self, work_class: WorkClass) -> None:
        """Work was queued: a staged slice gives way to an interactive patch."""
        if self._prepared and self._prepared.batch.is_slice and work_class is WorkClass.INTERACTIVE:
            self.clear()

    def take(self) -> Prepared | None:
        """The staged batch, if it should still run as it is; else its patches are queued again."""
        prepared = self._prepared
        if prepared is None or self._desk.is_stale(prepared.batch, self._clock()):
            self.clear()
            return None
        self._prepared = None
        return prepared

    def clear(self) -> None:
        """Send what is staged back to the head of its queues."""
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            prepared.copy.cancel()
            self._desk.unstage(prepared.batch)

    def close(self) -> None:
        """Stage nothing more; what is staged is queued again."""
        self._closed = True
        self.clear()

    def drop(self) -> None:
        """Stage nothing more and forget what is staged: nobody will get it."""
        self._closed, self._prepared = True, None
        self._copier.shutdown(wait=False, cancel_futures=True)
