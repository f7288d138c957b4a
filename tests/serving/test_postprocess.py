"""Separation in processes gives what it gives here, and no crash or hang of theirs harms more than one image."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from app.bench.processes import children
from app.nuclei.errors import EngineUnavailable
from app.nuclei.hover import NATIVE
from app.nuclei.lanes import POLITENESS
from app.nuclei.separation import HERE, Method, Separated, SeparatorFault
from app.nuclei.types import HoverMaps
from app.serving import postprocess, segments
from app.serving.postprocess import AVAILABLE, Processes
from tests.drawn import InkEngine, draw_tissue
from tests.serving.benches import PATIENCE_S, wait_for
from tests.workers import has_ended, nursery_of, workers_of

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the system has no memfd_create or pidfd_open")
METHOD = Method(NATIVE, 1.5, (1.0, 2.0))


def maps(seed: int = 0, side: int = 96) -> HoverMaps:
    """Maps of drawn tissue; its classes are unsure, so that their temperature counts."""
    sure = InkEngine().predict(draw_tissue(side, side, seed)[None])[0]
    noise = np.random.default_rng(seed).random(sure.type_prob.shape, np.float32)
    mixed = sure.type_prob + noise
    return HoverMaps(sure.np_prob, sure.hv, mixed / mixed.sum(-1, keepdims=True))


def copied(one: HoverMaps) -> HoverMaps:
    return HoverMaps(one.np_prob.copy(), one.hv.copy(), one.type_prob.copy())


def assert_same(found: Separated, expected: Separated) -> None:
    np.testing.assert_array_equal(found.grid, expected.grid)
    assert (found.repaired, found.dropped) == (expected.repaired, expected.dropped)
    for column in ("id", "type", "type_prob", "class_probs", "centroid", "bbox", "area", "covariance"):
        np.testing.assert_array_equal(getattr(found.nuclei, column), getattr(expected.nuclei, column))
    np.testing.assert_array_equal(found.nuclei.rings.points, expected.nuclei.rings.points)


@contextmanager
def opened(count: int = 1, limit_s: float = PATIENCE_S) -> Iterator[tuple[Processes, list[str]]]:
    """Workers, and why any was replaced."""
    reasons: list[str] = []
    pool = Processes(count, reasons.append, limit_s)
    pool.start()
    try:
        yield pool, reasons
    finally:
        pool.close()


@pytest.fixture
def pool() -> Iterator[Processes]:
    with opened() as (pool, _):
        yield pool


def test_workers_let_the_service_go_first(pool):
    (worker,), polite = workers_of(os.getpid()), min(19, os.getpriority(os.PRIO_PROCESS, 0) + POLITENESS)
    wait_for(lambda: os.getpriority(os.PRIO_PROCESS, worker) == polite)


@contextmanager
def held_up(pool: Processes, one: HoverMaps) -> Iterator[Future[Separated]]:
    """An image whose worker has it, and stands still."""
    (worker,) = workers_of(os.getpid())
    os.kill(worker, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as asking:
        future = asking.submit(pool.separate, one, METHOD)
        wait_for(pool._idle.empty)
        yield future


@pytest.mark.parametrize("side", [1, 7, 96, 300])
def test_a_worker_finds_what_is_found_here(pool, side):
    one = maps(3, side)
    assert_same(pool.separate(copied(one), METHOD), HERE.separate(copied(one), METHOD))


def test_maps_that_are_gathered_where_workers_read_are_not_copied(pool):
    one, blank = maps(1), pool.blank(96, 96, 7)
    blank.np_prob[...], blank.hv[...], blank.type_prob[...] = one.np_prob, one.hv, one.type_prob
    held, segment = segments.Segments().holding(blank)
    assert held is blank
    assert segment is segments.owner(blank.hv)
    assert_same(pool.separate(blank, METHOD), HERE.separate(copied(one), METHOD))


def test_a_part_of_gathered_maps_is_separated_as_if_it_were_alone(pool):
    one, blank = maps(2), pool.blank(96, 96, 7)
    blank.np_prob[...], blank.hv[...], blank.type_prob[...] = one.np_prob, one.hv, one.type_prob
    part = np.s_[10:80, 5:60]
    cut = HoverMaps(blank.np_prob[part], blank.hv[part], blank.type_prob[part])
    alone = HoverMaps(one.np_prob[part], one.hv[part], one.type_prob[part])
    assert_same(pool.separate(cut, METHOD), HERE.separate(copied(alone), METHOD))


def test_threads_that_ask_at_once_each_get_their_own():
    seeds = list(range(24))
    with opened(2) as (pool, reasons), ThreadPoolExecutor(8) as asking:
        found = list(asking.map(lambda seed: pool.separate(maps(seed), METHOD), seeds))
    for seed, one in zip(seeds, found, strict=True):
        assert_same(one, HERE.separate(maps(seed), METHOD))
    assert reasons == []


def test_an_image_whose_worker_is_killed_is_tried_again():
    with opened() as (pool, reasons), held_up(pool, maps(5)) as asked:
        os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
        assert_same(asked.result(PATIENCE_S), HERE.separate(maps(5), METHOD))
    assert reasons == ["crash"]


def test_a_worker_that_died_idle_is_replaced():
    with opened() as (pool, reasons):
        os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
        assert_same(pool.separate(maps(5), METHOD), HERE.separate(maps(5), METHOD))
    assert reasons == ["crash"]


def test_an_image_that_kills_two_workers_fails_and_the_next_one_is_served(monkeypatch):
    with opened() as (pool, reasons):
        born = pool._born

        def stillborn():
            worker = born()
            os.kill(worker.pid, signal.SIGKILL)
            return worker

        monkeypatch.setattr(pool, "_born", stillborn)
        os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
        with pytest.raises(SeparatorFault, match="crashed"):
            pool.separate(maps(), METHOD)
        monkeypatch.undo()
        assert_same(pool.separate(maps(6), METHOD), HERE.separate(maps(6), METHOD))
    assert reasons == ["crash", "crash"]


def test_a_large_image_is_not_tried_again_as_its_maps_are_changed_in_place(monkeypatch):
    monkeypatch.setattr(segments, "LARGE_BYTES", 1)
    with opened() as (pool, reasons), held_up(pool, maps()) as asked:
        os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
        with pytest.raises(SeparatorFault, match="crashed"):
            asked.result(PATIENCE_S)
    assert reasons == ["crash"]


def test_an_image_that_takes_too_long_fails_alone():
    with opened(limit_s=0.2) as (pool, reasons):
        with held_up(pool, maps()) as asked, pytest.raises(SeparatorFault, match="longer than"):
            asked.result(PATIENCE_S)
        pool._limit_s = PATIENCE_S
        assert_same(pool.separate(maps(7), METHOD), HERE.separate(maps(7), METHOD))
    assert reasons == ["timeout"]


def test_what_separation_raises_arrives_and_the_worker_lives():
    with opened() as (pool, reasons):
        before = workers_of(os.getpid())
        with pytest.raises(AttributeError):
            pool.separate(maps(), Method(None, 1.0, (1.0, 1.0)))
        pool.separate(maps(), METHOD)
        assert workers_of(os.getpid()) == before
    assert reasons == []


def test_a_worker_is_replaced_after_many_images(monkeypatch):
    monkeypatch.setattr(postprocess, "MOST_IMAGES", 2)
    with opened() as (pool, reasons):
        for seed in range(5):
            pool.separate(maps(seed), METHOD)
    assert reasons == ["recycle", "recycle"]


def test_a_nursery_that_is_killed_is_replaced_with_the_next_worker():
    with opened() as (pool, reasons):
        (worker,) = workers_of(os.getpid())
        os.kill(nursery_of(os.getpid()), signal.SIGKILL)
        pool.separate(maps(), METHOD)  # the worker that is there does not need it
        os.kill(worker, signal.SIGKILL)
        assert_same(pool.separate(maps(8), METHOD), HERE.separate(maps(8), METHOD))
    assert reasons == ["crash"]


def test_where_no_worker_can_be_started_it_is_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineUnavailable, match="cannot be started"), opened():
        pass


def test_a_worker_whose_answer_was_not_read_is_not_asked_again(monkeypatch):
    with opened() as (pool, reasons):
        real = postprocess.receive

        def short_of_memory(line):
            monkeypatch.setattr(postprocess, "receive", real)
            raise MemoryError

        monkeypatch.setattr(postprocess, "receive", short_of_memory)
        with pytest.raises(MemoryError):
            pool.separate(maps(1), METHOD)
        assert_same(pool.separate(maps(2), METHOD), HERE.separate(maps(2), METHOD))
    assert reasons == ["crash"]


def test_a_service_that_ends_while_its_workers_start_does_not_wait_for_them():
    pool = Processes(1, print)
    with ThreadPoolExecutor(1) as beside:
        starting = beside.submit(pool.start)
        wait_for(lambda: pool._nursery)
        os.kill(nursery_of(os.getpid()), signal.SIGSTOP)  # it never gets warm
        pool.close()
        with pytest.raises(EngineUnavailable):
            starting.result(PATIENCE_S)
    assert not [child for child in children(os.getpid()) if not has_ended(child)]


def test_signals_that_come_while_workers_start_are_the_services_too():
    pool = Processes(1, print)
    with ThreadPoolExecutor(1) as beside:
        starting = beside.submit(pool.start)
        wait_for(lambda: pool._nursery and "SIG_IGN" in ignored_of(nursery_of(os.getpid())))
        os.kill(nursery_of(os.getpid()), signal.SIGINT)
        starting.result(PATIENCE_S)
    pool.close()


def ignored_of(pid: int) -> str:
    """SIG_IGN, if a process ignores SIGINT and SIGTERM."""
    mask = int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line)[7:], 16)
    both = 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
    return "SIG_IGN" if mask & both == both else ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_service(pool, number):
    (worker,) = workers_of(os.getpid())
    for pid in (worker, nursery_of(os.getpid())):
        os.kill(pid, number)
    pool.separate(maps(), METHOD)
    assert workers_of(os.getpid()) == [worker]


def test_workers_are_forked_from_a_single_thread(pool):
    assert len(os.listdir(f"/proc/{nursery_of(os.getpid())}/task")) == 1


def test_images_of_many_sizes_leave_few_open_files_behind(pool):
    before = len(os.listdir("/proc/self/fd"))
    for side in range(20, 80):
        pool.separate(maps(1, side), METHOD)
    assert len(os.listdir("/proc/self/fd")) - before <= 2 * segments.MOST_KEPT


SCRIPT = """
import os, sys
from app.bench.processes import descendants
from app.serving.postprocess import Processes
pool = Processes(2, print)
pool.start()
print(*descendants(os.getpid()), flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_of_a_service_that_is_killed():
    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        pids = [int(pid) for pid in service.stdout.readline().split()]
        service.kill()
    assert len(pids) == 3
    wait_for(lambda: all(has_ended(pid) for pid in pids))
    assert set(os.listdir("/dev/shm")) <= before
