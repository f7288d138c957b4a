"""Tenants take turns; work that nobody awaits does not start; a running one keeps its place."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from app.serving.workers import Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Stage:
    """A pool with one thread that is busy until `go` is set, and a list of what ran after it."""

    def __init__(self) -> None:
        self.served: list[float] = []
        self.workers = Workers(1, self.served.append)
        self.ran: list[str] = []
        self.go, self.begun = threading.Event(), threading.Event()

    def first(self) -> str:
        self.begun.set()
        assert self.go.wait(30)
        return "first"

    async def queue(self, *names: str) -> list[asyncio.Task[None]]:
        """Occupy the thread, then queue work; a name's letter is its tenant, a digit behind a dot its request."""
        self.busy = asyncio.create_task(self.workers.run("z", self.first))
        await asyncio.to_thread(self.begun.wait, 30)
        tasks = []
        for name in names:
            number = int(name.partition(".")[2] or 0)
            tasks.append(asyncio.create_task(self.workers.run(name[0], partial(self.ran.append, name), number)))
            await asyncio.sleep(0)
        return tasks

    async def finish(self, tasks) -> list[object]:
        self.go.set()
        results = await asyncio.gather(self.busy, *tasks, return_exceptions=True)
        self.workers.close()
        return results


async def test_work_returns_its_result_or_its_error():
    workers = Workers(2, lambda seconds: None)
    assert await workers.run("a", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await workers.run("a", lambda: 1 // 0)
    assert await workers.run("a", lambda: 8) == 8
    workers.close()


async def test_tenants_take_turns():
    stage = Stage()
    tasks = await stage.queue("a1", "a2", "a3", "b1", "b2", "c1")
    await stage.finish(tasks)
    assert stage.ran == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_the_requests_of_a_tenant_take_turns():
    stage = Stage()
    tasks = await stage.queue("a1.1", "a2.1", "a3.1", "a4.2", "b1", "b2")
    await stage.finish(tasks)
    assert stage.ran == ["a1.1", "b1", "a4.2", "b2", "a2.1", "a3.1"]


async def test_work_that_is_cancelled_while_it_waits_never_starts():
    stage = Stage()
    tasks = await stage.queue("a1", "a2", "b1")
    tasks[0].cancel()
    await stage.finish(tasks)
    assert sorted(stage.ran) == ["a2", "b1"]


async def test_a_place_is_given_on_only_when_the_thread_is_free():
    stage = Stage()
    tasks = await stage.queue("a1")
    stage.busy.cancel()
    await asyncio.wait([stage.busy])
    assert stage.ran == []
    await stage.finish(tasks)
    assert stage.ran == ["a1"]


async def test_only_finished_work_counts_for_the_service_time():
    stage = Stage()
    tasks = await stage.queue("a1")
    await stage.finish(tasks)
    assert len(stage.served) == 2
    workers = Workers(1, stage.served.append)
    with pytest.raises(ZeroDivisionError):
        await workers.run("a", lambda: 1 // 0)
    assert len(stage.served) == 2
