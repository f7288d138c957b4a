"""Jobs: one worker each, and another one after it died; on both databases."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.nuclei.errors import Conflict, NotFound
from app.nuclei.types import Mpp
from app.slides.jobbook import JobBook, NewJob
from app.slides.places import Box
from tests.slides.kept import SLIDE


@pytest.fixture
def book(database):
    return JobBook(database)


@pytest.fixture
def new(store):
    region, mpp = Box(0, 0, 600, 480), Mpp(0.5, 0.5, "file")
    return NewJob(store.add_slide(SLIDE).id, region, "fast", "ink", "1", "a" * 64, mpp)


def test_a_job_is_queued_run_and_done(book, new):
    job = book.add(new)
    assert (job.state, job.region, job.mpp, book.get(job.id)) == ("queued", new.region, new.mpp, job)
    taken = book.claim("w1")
    assert (taken.id, taken.state, taken.worker, taken.started_ms is not None) == (job.id, "running", "w1", True)
    book.advance(job.id, "w1", done=3, total=12)
    assert (book.get(job.id).done, book.get(job.id).total) == (3, 12)
    book.finish(job.id, "w1")
    ended = book.get(job.id)
    assert (ended.state, ended.worker, ended.finished_ms is not None) == ("done", None, True)


def test_a_failed_job_says_why(book, new):
    job = book.add(new)
    book.claim("w1")
    book.finish(job.id, "w1", {"status": 500, "type": "urn:karyon:problem:inference-failed"})
    assert (book.get(job.id).state, book.get(job.id).problem["status"]) == ("failed", 500)


def test_a_cancelled_job_stops_its_worker(book, new):
    job = book.add(new)
    book.claim("w1")
    assert book.cancel(job.id).state == "cancelled"
    with pytest.raises(Conflict):
        book.advance(job.id, "w1", 1, 2)
    with pytest.raises(Conflict):
        book.finish(job.id, "w1")
    assert book.cancel(job.id).state == "cancelled"
    assert book.claim("w2") is None


def test_a_finished_job_is_not_cancelled(book, new):
    job = book.add(new)
    book.claim("w1")
    book.finish(job.id, "w1")
    assert book.cancel(job.id).state == "done"


def test_a_job_goes_to_one_of_many_workers(book, new):
    book.add(new)
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(book.claim, [f"w{i}" for i in range(8)]))
    assert sum(job is not None for job in taken) == 1


def test_owners_take_turns_however_many_jobs_one_of_them_queued(book, new, store):
    def queued(owner):
        return book.add(replace(new, slide_id=store.add_slide(replace(SLIDE, owner=owner)).id)).id

    many, one = [queued("key:many") for _ in range(3)], queued("key:one")
    order = []
    for turn in range(4):
        time.sleep(0.002)  # turns are told apart by their millisecond
        job = book.claim(f"w{turn}")
        order.append(job.id)
        book.finish(job.id, f"w{turn}")
    assert order == [many[0], one, *many[1:]]


def test_an_owner_who_deletes_what_is_done_has_had_its_turn_all_the_same(book, new, store):
    def queued(owner):
        return book.add(replace(new, slide_id=store.add_slide(replace(SLIDE, owner=owner)).id))

    first, second, other = queued("key:many"), queued("key:many"), queued("key:one")
    time.sleep(0.002)
    assert book.claim("w1").id == first.id
    book.finish(first.id, "w1")
    store.delete_slide(first.slide_id)
    assert [book.claim("w2").id, book.claim("w3").id] == [other.id, second.id]


def test_attempts_are_counted_until_a_window_is_done(book, new):
    job = book.add(new)
    for attempt in (1, 2, 3):
        assert book.claim("w").attempts == attempt
        book.advance(job.id, "w", done=0, total=4)
        book.release(job.id, "w")
    book.claim("w")
    book.advance(job.id, "w", done=1, total=4)
    book.release(job.id, "w")
    assert book.claim("w").attempts == 1


def test_what_has_begun_goes_on_before_anything_new_begins(book, new, store):
    begun = book.add(new)
    book.claim("w1")
    book.add(replace(new, slide_id=store.add_slide(replace(SLIDE, owner="key:other")).id))
    assert book.take_back(lambda worker: True) == 1
    assert book.claim("w2").id == begun.id


def test_the_job_of_a_dead_worker_goes_to_another_and_not_back(database, new):
    hasty = JobBook(database, lease_ms=-1)
    job = hasty.add(new)
    began = hasty.claim("dead").started_ms
    heir = JobBook(database).claim("heir")
    assert (heir.id, heir.worker, heir.started_ms) == (job.id, "heir", began)
    with pytest.raises(Conflict):
        hasty.advance(job.id, "dead", 1, 2)
    assert JobBook(database).claim("third") is None


def test_a_worker_that_stops_gives_its_job_back_at_once(book, new):
    job = book.add(new)
    book.claim("w1")
    book.release(job.id, "w1")
    assert book.claim("w2").id == job.id


def test_a_slide_has_one_unfinished_job(book, new):
    first = book.add(new)
    with pytest.raises(Conflict):
        book.add(new)
    book.cancel(first.id)
    second = book.add(new)
    assert {job.id for job in book.of_slide(new.slide_id)} == {first.id, second.id}


def test_jobs_go_with_their_slide(book, new, store):
    job = book.add(new)
    store.delete_slide(new.slide_id)
    with pytest.raises(NotFound):
        book.get(job.id)
    with pytest.raises(NotFound):
        book.add(new)
