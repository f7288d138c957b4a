"""Probes and metrics from a thread of their own, while the event loop does nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from app.admin import Admin

pytestmark = pytest.mark.anyio


@pytest.fixture
def admin(service) -> Iterator[httpx.Client]:
    server = Admin(service.app.state.services, port=0)
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        yield client
    server.stop()


async def test_it_answers_while_the_loop_is_blocked(admin):
    # The client is synchronous: while it waits, the loop that runs this test cannot turn.
    assert [admin.get(f"/healthz/{probe}").status_code for probe in ("startup", "ready", "live")] == [200, 200, 200]
    assert admin.get("/healthz/live").json() == {"state": "ready"}


async def test_a_loop_that_is_stuck_is_not_alive(admin, service):
    vitals = service.app.state.services.vitals
    began = time.monotonic()
    vitals._clock = lambda: time.monotonic() + 3600
    answer = admin.get("/healthz/live")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:karyon:problem:device-fault")
    assert "loop" in answer.json()["detail"]
    vitals._clock = lambda: began
    assert admin.get("/healthz/live").status_code == 200


async def test_metrics_are_those_of_the_service(admin):
    text = admin.get("/metrics").text
    assert 'nuclei_device_healthy{device="cpu"} 1.0' in text


async def test_anything_else_is_a_problem(admin):
    answer = admin.get("/v1/models")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_a_service_that_drains_says_so_here_too(admin, service):
    service.app.state.services.lifecycle.drain()
    assert admin.get("/healthz/ready").json()["type"] == "urn:karyon:problem:draining"
    assert admin.get("/healthz/live").status_code == 200
