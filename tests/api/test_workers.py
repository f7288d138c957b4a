"""A worker that dies under a request costs the caller nothing, and the operator sees it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from app.serving.postprocess import AVAILABLE
from tests.api.exposition import samples
from tests.workers import workers_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not AVAILABLE, reason="the system has no memfd_create or pidfd_open"),
]


async def test_a_tile_whose_worker_is_killed_is_answered_as_any_other(serving, png):
    async with serving(postprocess_workers=1) as service:
        expected = (await service.segment(png)).json()
        (worker,) = workers_of(os.getpid())
        os.kill(worker, signal.SIGSTOP)
        asked = asyncio.create_task(service.segment(png))
        slots = service.app.state.services.slots
        while not slots.in_use:
            await asyncio.sleep(0.01)
        os.kill(worker, signal.SIGKILL)
        answer = await asked
        restarts = (await samples(service))["nuclei_worker_restarts_total"]
    assert answer.status_code == 200
    assert answer.json()["features"] == expected["features"]
    assert restarts[(("reason", "crash"),)] == 1


async def test_an_image_that_is_too_much_for_a_worker_fails_alone(serving, png):
    async with serving(postprocess_workers=1) as service:
        pool = service.app.state.services.postprocess
        patience, pool._limit_s = pool._limit_s, 0.1
        (worker,) = workers_of(os.getpid())
        os.kill(worker, signal.SIGSTOP)
        failed = await service.segment(png)
        pool._limit_s = patience
        served = await service.segment(png)
        restarts = (await samples(service))["nuclei_worker_restarts_total"]
    assert (failed.status_code, failed.json()["type"]) == (500, "urn:karyon:problem:inference-failed")
    assert served.status_code == 200
    assert restarts[(("reason", "timeout"),)] == 1


@pytest.mark.parametrize("workers", [0, 2])
async def test_the_answer_is_the_same_with_and_without_workers(serving, png, workers):
    async with serving(postprocess_workers=0) as plain:
        expected = (await plain.segment(png)).json()["features"]
    async with serving(postprocess_workers=workers) as service:
        assert (await service.segment(png)).json()["features"] == expected
