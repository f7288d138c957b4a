"""How soon an answer is wanted, who holds too much, and what a broken or hung device looks like from outside."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.serving.budget import Claim
from app.serving.liveness import Vitals
from app.serving.work import WorkClass
from tests.drawn import draw_tissue

pytestmark = pytest.mark.anyio


class Gated:
    """An engine that can be closed, or made to fail for good."""

    def __init__(self, engine) -> None:
        self.engine, self.open, self.reached, self.says = engine, threading.Event(), threading.Event(), ""
        self.open.set()

    def predict(self, patches):
        self.reached.set()
        assert self.open.wait(30)
        if self.says:
            raise RuntimeError(self.says)
        return self.engine.predict(patches)


async def closed(service, gated, png) -> asyncio.Task:
    """A request that occupies the device."""
    gated.reached.clear()
    gated.open.clear()
    task = asyncio.create_task(service.segment(png))
    assert await asyncio.to_thread(gated.reached.wait, 30)
    return task


def slug(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "", "1e3", "99999999999", "²"])
async def test_an_impossible_deadline_is_refused_by_name(service, png, value):
    answer = await service.segment(png, headers={"X-Request-Timeout-Ms": value.encode()})
    assert slug(answer) == (422, "invalid-parameter")
    assert answer.json()["errors"][0]["parameter"] == "X-Request-Timeout-Ms"


async def test_a_class_may_be_lowered_only(service, png):
    assert (await service.segment(png, headers={"X-Request-Class": "bulk"})).status_code == 200
    assert (await service.segment(png, headers={"X-Request-Class": "interactive"})).status_code == 200
    assert slug(await service.segment(png, headers={"X-Request-Class": "urgent"})) == (422, "invalid-parameter")


async def test_a_deadline_that_the_work_ahead_leaves_no_time_for_is_refused_at_once(service, png):
    services = service.app.state.services
    services.runner.cost_per_s = 1.0
    with services.budget.reserve(Claim("other", WorkClass.INTERACTIVE, 40.0)):
        answer = await service.segment(png, headers={"X-Request-Timeout-Ms": "6000"})
    assert slug(answer) == (503, "deadline-unattainable")
    assert 40 <= int(answer.headers["retry-after"]) == answer.json()["retry_after_seconds"] <= 50
    assert (await service.segment(png, headers={"X-Request-Timeout-Ms": "600000"})).status_code == 200


async def test_a_deadline_shorter_than_the_work_itself_is_told_so_and_no_time_to_come_back(service, png):
    service.app.state.services.runner.cost_per_s = 0.1
    answer = await service.segment(png, headers={"X-Request-Timeout-Ms": "5000"})
    assert slug(answer) == (503, "deadline-unattainable")
    assert "with 40000 ms" in answer.json()["detail"]
    assert ("retry-after" in answer.headers, "retry_after_seconds" in answer.json()) == (False, False)


async def test_a_small_tile_behind_a_large_upload_of_the_same_caller_does_not_wait_for_it(serving, ink, encoded):
    gated = Gated(ink)
    large, small = encoded(draw_tissue(1300, 1300)), encoded(draw_tissue(200, 200))
    async with serving(engine=gated) as service:
        tasks = [await closed(service, gated, large), asyncio.create_task(service.segment(small))]
        while service.app.state.services.runner.ask(lambda s: s.queued(WorkClass.INTERACTIVE).count) < 16:
            await asyncio.sleep(0.01)
        before = len(ink.calls)
        gated.open.set()
        assert [(await task).status_code for task in tasks] == [200, 200]
    sizes = [size for count, size, *_ in ink.calls[before:] for _ in range(count)]
    assert (len(sizes), 256 in sizes[:4]) == (17, True)


async def test_a_deadline_lost_in_the_queue_is_told(serving, ink, png):
    gated = Gated(ink)
    async with serving(engine=gated) as service:
        service.app.state.services.runner.cost_per_s = 1e6  # a promise that the device does not keep
        first = await closed(service, gated, png)
        late = asyncio.create_task(service.segment(png, headers={"X-Request-Timeout-Ms": "300"}))
        await asyncio.sleep(0.6)
        gated.open.set()
        assert slug(await late) == (504, "deadline-exceeded")
        assert (await first).status_code == 200


async def test_who_holds_too_much_is_told_and_others_are_served(serving, ink, png):
    gated = Gated(ink)
    async with serving(engine=gated, tenant_cost=6.0) as service:
        first = await closed(service, gated, png)  # 300 x 255 pixels are one patch of 512: cost 4
        answer = await service.segment(png)
        assert slug(answer) == (429, "tenant-quota")
        assert answer.headers["retry-after"] == str(answer.json()["retry_after_seconds"])
        gated.open.set()
        assert (await first).status_code == 200
        assert (await service.segment(png)).status_code == 200
        assert service.app.state.services.budget.held == 0


async def test_a_full_queue_refuses_bulk_before_people(serving, ink, png):
    gated = Gated(ink)
    async with serving(engine=gated, max_queue_cost=10.0, tenant_cost=10.0) as service:
        first = await closed(service, gated, png)
        assert slug(await service.segment(png, headers={"X-Request-Class": "bulk"})) == (503, "overloaded")
        second = asyncio.create_task(service.segment(png))
        gated.open.set()
        assert [(await task).status_code for task in (first, second)] == [200, 200]


async def test_work_that_no_replica_takes_is_too_large(serving, png):
    async with serving(max_queue_cost=3.0) as service:
        assert slug(await service.segment(png)) == (413, "payload-too-large")


async def test_a_broken_device_is_neither_ready_nor_alive(serving, ink, png):
    gated = Gated(ink)
    async with serving(engine=gated) as service:
        gated.says = "CUDA failure 700: an illegal memory access was encountered"
        answers = [await service.segment(png), await service.segment(png)]
        answers += [await service.http.get(f"/healthz/{probe}") for probe in ("ready", "live")]
        assert {slug(answer) for answer in answers} == {(503, "device-fault")}
        assert {answer.headers["retry-after"] for answer in answers} == {"10"}


async def test_a_hung_device_is_not_alive_and_recovers(serving, ink, png):
    gated = Gated(ink)
    async with serving(engine=gated, hang_s=0.1) as service:
        vitals: Vitals = service.app.state.services.vitals
        first = await closed(service, gated, png)
        while vitals.progress.stalled_s() <= vitals.hang_s:
            await asyncio.sleep(0.05)
        assert slug(await service.http.get("/healthz/live")) == (503, "device-fault")
        gated.open.set()
        assert (await first).status_code == 200
        assert (await service.http.get("/healthz/live")).status_code == 200


async def test_a_process_that_drains_serves_for_a_moment_while_it_is_unready(service, png):
    service.app.state.services.lifecycle.drain(delay_s=3600)
    assert (await service.segment(png)).status_code == 200
    assert slug(await service.http.get("/healthz/ready")) == (503, "draining")
