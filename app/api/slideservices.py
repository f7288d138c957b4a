"""What do the slides' routes need, when is the store opened, and what is cleaned up meanwhile?

The store is opened and migrated at the start if it is there already, else by the first slide: a service that only sees
tiles writes nothing to the disk. If it cannot be opened, its routes answer 503 and the next request tries again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

from app.api.analysts import Analysts
from app.api.errors import problem_body
from app.nuclei.errors import Draining, NotReady, Refusal
from app.settings import Settings, slide_folder
from app.slides.database import Database, in_file
from app.slides.jobbook import JobBook
from app.slides.jobs import Means, Worker
from app.slides.library import Library
from app.slides.records import Slide, now_ms
from app.slides.store import Store
from app.slides.uploads import Files
from app.slides.views import Views
from app.telemetry import Record, log

CLEAN_EVERY_S = 3600.0
DAY_MS = 24 * 3600 * 1000
KEY = "key:"


@dataclass(frozen=True, slots=True)
class Opened:
    """The store and all that works on it."""

    library: Library
    book: JobBook
    workers: tuple[Worker, ...]
    views: Views


class SlideServices:
    """Slides, their files, results and jobs; every method may be called from any thread, and blocks."""

    def __init__(self, settings: Settings, analysts: Analysts, ready: Callable[[], bool]) -> None:
        """Nothing is opened or written yet.

        Args:
            settings: of the service.
            analysts: open the models of jobs.
            ready: whether jobs may be taken now.
        """
        self.analysts = analysts
        self._settings, self._ready = settings, ready
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._opened: Opened | None = None
        self._keeper = threading.Thread(target=self._keep, name="karyon-slides", daemon=True)

    @property
    def library(self) -> Library:
        """Slides and their files.

        Raises:
            NotReady, MissingExtra: if the store cannot be opened now.
            Draining: if the service is stopping.
        """
        return self._open().library

    @property
    def book(self) -> JobBook:
        """Jobs; raises as `library`."""
        return self._open().book

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Who does the jobs; raises as `library`."""
        return self._open().workers

    @property
    def views(self) -> Views:
        """What viewers ask for; raises as `library`."""
        return self._open().views

    def slide(self, slide_id: str, tenant: str) -> Slide:
        """A slide of a caller.

        Raises:
            NotFound: if there is none of this id, or it is somebody else's.
        """
        return self.library.store.slide(slide_id, owner_of(tenant))

    def start(self) -> None:
        """Open what is there, in the background, and keep it clean."""
        self._keeper.start()

    def close(self) -> None:
        """End what runs, and close the store."""
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            for worker in opened.workers:
                worker.close()
            opened.views.close()
            opened.library.store.database.close()

    def _open(self) -> Opened:
        with self._lock:
            if self._stop.is_set():
                raise Draining("this service is stopping; another one may take the request")
            if self._opened is None:
                own, library = self._settings, open_store(self._settings)
                book = JobBook(library.store.database)
                views = Views.of(library, own.view_cache_bytes, own.outlines_to, own.viewport_nuclei)
                self._opened = Opened(library, book, tuple(self._hired(library, book)), views)
            return self._opened

    def _hired(self, library: Library, book: JobBook) -> Iterator[Worker]:
        own = self._settings
        means = Means(
            *(library, book, self.analysts, explain, own.slide_window, own.slide_windows_at_once, self._ready)
        )
        for _ in range(own.slide_jobs_at_once):
            worker = Worker(means)
            worker.start()
            yield worker

    def _keep(self) -> None:
        while True:
            try:
                if self._opened is not None or is_there(self._settings):
                    self._clean(self._open())
            except Draining:
                return
            except Exception as error:  # whatever it is, it must not end the cleaning for good
                log("the store was not cleaned up", logging.WARNING, reason=f"{type(error).__name__}: {error}")
            if self._stop.wait(CLEAN_EVERY_S):
                return

    def _clean(self, opened: Opened) -> None:
        gone: list[str] = []
        if self._settings.retention_days is not None:
            gone = opened.library.expire(now_ms() - int(self._settings.retention_days * DAY_MS))
        for slide_id in gone:
            opened.views.forget(slide_id)  # pixels in memory go too, and the room on the disk that an open file holds
        leftovers = opened.library.sweep()
        if gone or leftovers:
            log("the store was cleaned up", slides_expired=len(gone), leftovers_removed=leftovers)


def owner_of(tenant: str) -> str:
    """Whose slides a caller sees: those of its key; all who call without a key share theirs."""
    return tenant if tenant.startswith(KEY) else ""


def store_url(settings: Settings) -> URL:
    """Where the database is."""
    return make_url(settings.store_url) if settings.store_url else in_file(slide_folder(settings) / "store.sqlite")


def is_there(settings: Settings) -> bool:
    """Whether there is a store to open: a server's database, or a file."""
    url = store_url(settings)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


def open_store(settings: Settings) -> Library:
    """Open the store, made if it is not there.

    Raises:
        NotReady: if it cannot be opened; the log says why.
        MissingExtra: if its driver is not installed.
    """
    folder = slide_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = Database.open(store_url(settings))
    except Refusal:
        raise
    except Exception as error:
        log("the store cannot be opened", logging.ERROR, reason=f"{type(error).__name__}: {error}")
        raise NotReady("the store cannot be opened; the log says why") from error
    store = Store(database, settings.store_quota)
    files = Files(folder, settings.slide_max_bytes, store.room_bytes)
    return Library(store, files, settings.slide_root)


def explain(error: Exception, job_id: str) -> dict[str, Any]:
    """What stopped a job, as the problem that is written into it; what nobody expected is logged."""
    if not isinstance(error, Refusal):
        log("unexpected error", logging.ERROR, error, request_id=job_id)
    body = problem_body(error, Record(job_id))
    log("slide job", logging.WARNING, job=job_id, problem=body["type"], detail=body["detail"])
    return body
