"""Who does a job when its worker dies, falls silent or is told to stop, and what a full disk leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.nuclei.errors import Conflict, KaryonError, StorageFull, UnknownModel
from app.slides.database import Database
from app.slides.jobbook import Job, JobBook
from app.slides.jobs import LIFE, MOST_ATTEMPTS, Means, Worker, is_dead
from app.slides.library import Library
from app.slides.reading import list_tiles
from app.slides.store import Store
from app.slides.uploads import Files
from tests.drawn import InkEngine, draw_tissue
from tests.slides.jobbing import analyst, ink_model, new_job, rooted

IMAGE = draw_tissue(380, 380, seed=6)
PATIENCE_S = 60
HOST = socket.gethostname()


class Valve(InkEngine):
    """Waits for a sign before each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.reached = threading.Event(), threading.Event()

    def predict(self, patches):
        self.reached.set()
        assert self.open.wait(PATIENCE_S)
        return super().predict(patches)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(book: JobBook, job: Job) -> Job:
    wait_for(lambda: book.get(job.id).state not in ("queued", "running"))
    return book.get(job.id)


@pytest.fixture
def model(tmp_path, ink):
    return ink_model(tmp_path / "models" / "ink" / "1", ink)


@contextmanager
def working(library: Library, model, engine=None, book: JobBook | None = None, **changes) -> Iterator[Worker]:
    engine = engine or InkEngine()
    means = Means(
        library,
        book or JobBook(library.store.database),
        *(changes.pop("analyst", lambda job, slide: analyst(model, engine)),),
        lambda error, job: {"type": type(error).__name__},
        *(150, 2),
    )
    worker = Worker(means)
    worker.start()
    try:
        yield worker
    finally:
        worker.close()


def test_jobs_are_done_one_after_the_other(library, model):
    book = JobBook(library.store.database)
    slides = [rooted(library, IMAGE, f"{n}.tif") for n in range(3)]
    queued = [book.add(new_job(slide, model)) for slide in slides]
    with working(library, model):
        done = [ended(book, job) for job in queued]
    assert [(job.state, job.done == job.total > 1) for job in done] == [("done", True)] * 3
    assert len({len(list_tiles(library.store.database, slide.id)) for slide in slides}) == 1


def test_workers_side_by_side_do_nothing_twice(library, model):
    book, engine = JobBook(library.store.database), InkEngine()
    queued = [book.add(new_job(rooted(library, IMAGE, f"{n}.tif"), model)) for n in range(4)]
    with working(library, model, engine) as one, working(library, model, engine) as other:
        states = {ended(book, job).state for job in queued}
        one.wake()
        other.wake()
    alone = InkEngine()
    with working(library, model, alone):
        ended(book, book.add(new_job(rooted(library, IMAGE, "alone.tif"), model)))
    assert states == {"done"}
    assert sum(n for n, *_ in engine.calls) == 4 * sum(n for n, *_ in alone.calls)


def test_a_worker_that_stops_puts_its_job_back_and_the_next_one_goes_on(library, model):
    book, valve = JobBook(library.store.database), Valve()
    job = book.add(new_job(rooted(library, IMAGE), model))
    with working(library, model, valve) as worker:
        wait_for(valve.reached.is_set)
        threading.Timer(0.2, valve.open.set).start()
        worker.close()
    assert book.get(job.id).state == "queued"
    with working(library, model):
        assert ended(book, job).state == "done"


def test_the_job_of_a_process_that_died_here_goes_on_at_once(sqlite_library, model):
    book = JobBook(sqlite_library.store.database)
    job = book.add(new_job(rooted(sqlite_library, IMAGE), model))
    died = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert book.claim(f"{HOST}/{int(died.stdout)}/then/1").id == job.id
    with working(sqlite_library, model):
        assert ended(book, job).state == "done"


def test_a_job_that_ended_with_every_service_that_took_it_is_given_up(library, model):
    book = JobBook(library.store.database)
    job = book.add(new_job(rooted(library, IMAGE), model))
    for _ in range(MOST_ATTEMPTS):
        book.claim("dead")
        book.take_back(lambda worker: True)
    with working(library, model):
        failed = ended(book, job)
    assert (failed.state, failed.problem) == ("failed", {"type": "InferenceFailed"})


def test_the_job_of_a_worker_elsewhere_is_taken_over_when_it_falls_silent(library, model):
    book = JobBook(library.store.database, lease_ms=300)
    job = book.add(new_job(rooted(library, IMAGE), model))
    book.claim("elsewhere/1/life/1")
    with working(library, model, book=book) as worker:
        wait_for(lambda: worker.wake() or book.get(job.id).state == "done")
    with pytest.raises(Conflict):
        book.advance(job.id, "elsewhere/1/life/1", 1, 2)


def test_a_worker_renews_its_lease_while_a_window_takes_long(library, model):
    book, valve = JobBook(library.store.database, lease_ms=400), Valve()
    job = book.add(new_job(rooted(library, IMAGE), model))
    with working(library, model, valve, book):
        wait_for(valve.reached.is_set)
        time.sleep(1.0)
        assert book.claim("elsewhere/1/life/1") is None
        valve.open.set()
        assert ended(book, job).state == "done"


def test_only_processes_that_are_surely_gone_count_as_dead():
    assert is_dead(f"{HOST}/{os.getpid()}/another life/1")
    assert not is_dead(f"{HOST}/{os.getpid()}/{LIFE}/1")
    assert not is_dead(f"{HOST}/{os.getppid()}/x/1")
    assert not is_dead("elsewhere/999999/x/1")


def test_a_cancelled_job_leaves_its_slide_free_and_what_was_done(library, model):
    book, valve = JobBook(library.store.database), Valve()
    slide = rooted(library, IMAGE)
    job = book.add(new_job(slide, model))
    with working(library, model, valve) as worker:
        wait_for(valve.reached.is_set)
        book.cancel(job.id)
        worker.cancel(job.id)
        valve.open.set()
        again = book.add(new_job(slide, model))
        worker.wake()
        assert (ended(book, again).state, book.get(job.id).state) == ("done", "cancelled")


def test_a_job_whose_model_is_gone_fails_with_a_problem(library, model):
    def gone(job, slide):
        raise UnknownModel("no such model")

    book = JobBook(library.store.database)
    job = book.add(new_job(rooted(library, IMAGE), model))
    with working(library, model, analyst=gone):
        state = ended(book, job)
    assert (state.state, state.problem) == ("failed", {"type": "UnknownModel"})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A file system of its own at `disk`; call with a size to make it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True) and None
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_job_that_filled_the_disk_goes_on_when_there_is_room(tmp_path, model, small_disk):
    (tmp_path / "root").mkdir()
    database = Database.open(f"sqlite:///{tmp_path / 'disk' / 'store.sqlite'}")
    library = Library(Store(database), Files(tmp_path / "disk", 1), tmp_path / "root")
    book, said = JobBook(database, lease_ms=500), []
    slide = rooted(library, draw_tissue(700, 700, seed=2))
    job = book.add(new_job(slide, model))

    def explain(error, job_id):
        said.append(error)
        return {"type": type(error).__name__}

    worker = Worker(Means(library, book, lambda job, slide: analyst(model, InkEngine()), explain, 150, 2))
    worker.start()
    wait_for(lambda: said)
    kept = {tile.content_sha256 for tile in list_tiles(database, slide.id)}
    small_disk("64m")
    wait_for(lambda: worker.wake() or book.get(job.id).state in ("done", "failed"))
    if book.get(job.id).state == "failed":  # there was room to write that down
        job = book.add(new_job(slide, model))
        worker.wake()
    state = ended(book, job)
    worker.close()
    assert isinstance(said[0], StorageFull)
    assert all(isinstance(error, KaryonError) for error in said)
    found = {tile.content_sha256 for tile in list_tiles(database, slide.id)}
    database.close()
    assert (state.state, state.done, kept < found) == ("done", state.total, True)
