"""Who does the jobs, and what becomes of one when its worker, its slide, its disk or its caller goes away?

A worker is a thread of this process. It claims a job by a lease that it renews while it works, so that the job of a
process that died goes on elsewhere when the lease has run out, or at once when the same machine starts again. A job
that cannot go on fails with a problem; what it finished stays, and the next job of the slide begins there.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from app.nuclei.errors import Abandoned, Conflict, DeviceFault, Draining, InferenceFailed, KaryonError
from app.slides.analyst import Analyst
from app.slides.jobbook import Job, JobBook
from app.slides.library import Library
from app.slides.records import Slide
from app.slides.running import Run

LIFE = uuid.uuid4().hex  # of this process: a number of a process comes again, at once in containers
POLL_S = 5.0  # between two looks for jobs that other processes made or left
SOON_S = 0.2  # and while the model is not ready
BEATS = 4  # renewals in the time of a lease
MOST_ATTEMPTS = 5  # at a job without a window done: what kills the service would come first after every start
FINISHING = 3  # times that the end of a job is written down before the lease is left to run out

AnalystFor = Callable[[Job, Slide], Analyst]
Explain = Callable[[Exception, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Means:
    """What jobs are done with.

    Attributes:
        library, book: of the store.
        analyst: opens the model of a job.
        explain: an error, and the id of its job or "", as the problem that is written into the job; may log it.
        side: of a window's core, pixels at the model's scale, about.
        at_once: windows of one job that are in work.
        ready: whether jobs may be taken now.
    """

    library: Library
    book: JobBook
    analyst: AnalystFor
    explain: Explain
    side: int
    at_once: int = 2
    ready: Callable[[], bool] = lambda: True


class Worker:
    """A thread that does one job after the other."""

    def __init__(self, means: Means) -> None:
        """Not started yet."""
        self.name = f"{socket.gethostname()}/{os.getpid()}/{LIFE}/{uuid.uuid4().hex}"
        self._means = means
        self._stop, self._wake = threading.Event(), threading.Event()
        self._lock, self._advancing = threading.Lock(), threading.Lock()
        self._run: Run | None = None
        self._thread = threading.Thread(target=self._live, name="karyon-jobs", daemon=True)

    def start(self) -> None:
        """Go on with what the last process of this machine left, then take what comes."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """Stop working on a job, if this worker does; the book says already that it is cancelled."""
        with self._lock:
            run = self._run
        if run is not None and run.job.id == job_id:
            run.stop()

    def rate(self, job_id: str) -> float | None:
        """Windows per second of a job, if this worker does it."""
        run = self._run
        return run.progress.rate if run is not None and run.job.id == job_id else None

    def close(self) -> None:
        """Put the job back that is being done, and end."""
        self._stop.set()
        self._wake.set()
        with self._lock:
            run = self._run
        if run is not None:
            run.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _live(self) -> None:
        with suppress(KaryonError):
            self._means.book.take_back(is_dead)
        while not self._stop.is_set():
            ready = self._means.ready()
            job = self._claim() if ready else None
            if job is not None:
                self._do(job)
            else:
                self._wake.wait(POLL_S if ready else SOON_S)
                self._wake.clear()

    def _claim(self) -> Job | None:
        try:
            return self._means.book.claim(self.name)
        except Exception as error:  # the database is away for a while
            self._means.explain(error, "")
            return None

    def _do(self, job: Job) -> None:
        try:
            if job.attempts > MOST_ATTEMPTS:
                raise InferenceFailed("every attempt at this job ended with the service that made it")
            with self._begun(job) as run, self._beating(run):
                run.work()
        except Abandoned:  # we stop, or the job was cancelled or taken over: then it is no longer ours
            self._write(lambda: self._means.book.release(job.id, self.name))
        except (Draining, DeviceFault):  # this process ends; another one goes on
            self._stop.set()
            self._write(lambda: self._means.book.release(job.id, self.name))
        except Exception as error:
            problem = self._means.explain(error, job.id)
            self._write(lambda: self._means.book.finish(job.id, self.name, problem))
        else:
            self._write(lambda: self._means.book.finish(job.id, self.name))

    @contextmanager
    def _begun(self, job: Job) -> Iterator[Run]:
        means = self._means
        analyst = means.analyst(job, means.library.store.slide(job.slide_id))
        run = Run(means.library, job, analyst, means.side, means.at_once, lambda: self._advance(run))
        with self._lock:
            self._run = run
        try:
            if self._stop.is_set():
                raise Abandoned
            yield run
        finally:
            with self._lock:
                self._run = None

    def _advance(self, run: Run) -> None:
        with self._advancing:  # or the heart's beat may write an older count over the last one
            try:
                self._means.book.advance(run.job.id, self.name, run.progress.done, run.progress.total)
            except Conflict:
                raise Abandoned from None

    @contextmanager
    def _beating(self, run: Run) -> Iterator[None]:
        """Renew the lease meanwhile: a window may take longer than that."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self._means.book.lease_ms / 1000 / BEATS):
                try:
                    self._advance(run)
                except Abandoned:
                    run.stop()
                    return
                except Exception as error:  # the database is away; if for long, another worker takes over
                    self._means.explain(error, run.job.id)

        beating = threading.Thread(target=beat, name="karyon-beat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()

    def _write(self, end: Callable[[], None]) -> None:
        """Write down how a job ended; if that cannot be, its lease runs out and it is tried again."""
        for attempt in range(FINISHING):
            try:
                end()
                return
            except Conflict:  # cancelled, deleted or taken over
                return
            except Exception as error:
                if attempt == FINISHING - 1:
                    self._means.explain(error, "")
                elif self._stop.wait(1.0):
                    continue


def is_dead(worker: str) -> bool:
    """Whether a worker's process is surely gone; one of another machine may live."""
    host, pid, life, _ = worker.split("/")
    if host != socket.gethostname():
        return False
    if int(pid) == os.getpid():  # we have its number now: unless it was us, it was an earlier life of this container
        return life != LIFE
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
