"""Many images in one request: admitted together, answered one by one."""

from __future__ import annotations

import asyncio
import threading

import httpx
import orjson
import pytest

from app.main import create_app
from tests.drawn import draw_tissue

pytestmark = pytest.mark.anyio


class Held:
    """An engine that can be closed, and counts what it has seen."""

    def __init__(self, engine) -> None:
        self.engine, self.go, self.patches = engine, threading.Event(), 0
        self.go.set()

    def predict(self, patches):
        self.patches += len(patches)
        assert self.go.wait(30)
        return self.engine.predict(patches)


def form(*images: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{i}.png", image, "application/octet-stream")) for i, image in enumerate(images)]


async def batch(service, *images: bytes, **parts) -> httpx.Response:
    return await service.http.post("/v1/segment/batch", files=form(*images), **parts)


def lines(answer: httpx.Response) -> tuple[dict[int, dict], dict]:
    """The tiles' lines by index, and the last one."""
    *tiles, last = [orjson.loads(line) for line in answer.content.splitlines()]
    assert len({tile["index"] for tile in tiles}) == len(tiles)
    return {tile["index"]: tile for tile in tiles}, last


@pytest.fixture
def pictures(encoded) -> list[bytes]:
    return [encoded(draw_tissue(100 + 40 * i, 120, seed=i)) for i in range(6)]


async def test_each_image_is_answered_as_if_it_had_come_alone(service, pictures):
    answer = await batch(service, *pictures, params={"mpp": 0.5})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    tiles, last = lines(answer)
    assert last == {"done": True, "ok": 6, "failed": 0}
    for index, picture in enumerate(pictures):
        alone = (await service.segment(picture, params={"mpp": 0.5})).json()
        assert (tiles[index]["status"], tiles[index]["result"]["features"]) == (200, alone["features"])


async def test_a_bad_image_fails_alone(service, png):
    tiles, last = lines(await batch(service, png, b"", png[:-9], b"text", png))
    assert {index: tile["status"] for index, tile in tiles.items()} == {0: 200, 1: 422, 2: 422, 3: 415, 4: 200}
    assert last == {"done": True, "ok": 2, "failed": 3}
    assert tiles[2]["problem"]["type"] == "urn:karyon:problem:invalid-image"
    assert set(tiles[1]) == {"index", "status", "problem"}


async def test_a_fault_of_the_model_on_one_image_is_not_the_others(serving, ink, png, encoded):
    poison = draw_tissue(100, 100)
    poison[0, 0] = 7

    class Delicate(Held):
        def predict(self, patches):
            if (patches[:, 0, 0] == 7).all(-1).any():
                raise ValueError("/secret/path")
            return super().predict(patches)

    async with serving(engine=Delicate(ink)) as service:
        answer = await batch(service, png, encoded(poison), png)
    tiles, last = lines(answer)
    assert {index: tile["status"] for index, tile in tiles.items()} == {0: 200, 1: 500, 2: 200}
    assert (last["failed"], b"secret" in answer.content) == (1, False)


async def test_images_come_back_when_they_are_done_not_when_it_is_their_turn(serving, ink, png, encoded):
    large, small = encoded(draw_tissue(700, 900)), encoded(draw_tissue(60, 60))
    async with serving(bulk_at_once=2) as service:
        answer = await batch(service, large, b"", small, params={"mpp": 0.5})
    assert orjson.loads(answer.content.splitlines()[0])["index"] == 1


@pytest.mark.parametrize(
    ("changes", "status", "slug"),
    [
        ({"tenant_cost": 10.0}, 413, "payload-too-large"),
        ({"max_queue_cost": 10.0}, 413, "payload-too-large"),
        ({"max_batch_tiles": 2}, 413, "payload-too-large"),
    ],
)
async def test_all_are_admitted_or_none(serving, ink, png, changes, status, slug):
    engine = Held(ink)
    async with serving(engine=engine, **changes) as service:
        before = engine.patches
        answer = await batch(service, png, png, png)
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:karyon:problem:{slug}")
        assert (engine.patches, service.app.state.services.budget.held) == (before, 0)


async def test_a_batch_over_the_quota_is_one_refusal_and_queues_nothing(serving, ink, png):
    engine = Held(ink)
    async with serving(engine=engine, tenant_cost=14.0) as service:
        engine.go.clear()
        first = asyncio.create_task(service.segment(png))
        while service.app.state.services.budget.held != 4:
            await asyncio.sleep(0.01)
        answer = await batch(service, png, png, png)
        assert (answer.status_code, answer.json()["type"]) == (429, "urn:karyon:problem:tenant-quota")
        assert service.app.state.services.budget.held == 4
        engine.go.set()
        assert (await first).status_code == 200


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ({"params": {"mpp": 50}}, 422),
        ({"params": {"model": "nobody"}}, 404),
        ({"params": {"mmp": 0.5}}, 422),
        ({"headers": {"Accept": "image/png"}}, 406),
        ({"headers": {"X-Request-Class": "interactive"}}, 422),
        ({"headers": {"X-Request-Timeout-Ms": "soon"}}, 422),
    ],
)
async def test_what_is_wrong_with_the_request_refuses_it_whole(service, png, parts, status):
    answer = await batch(service, png, **parts)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_body_that_is_no_form_or_has_no_image_is_refused(service, png):
    plain = await service.http.post("/v1/segment/batch", content=png, headers={"Content-Type": "image/png"})
    empty = await service.http.post("/v1/segment/batch", files={"picture": ("a.png", png, "image/png")})
    assert (plain.status_code, empty.status_code) == (415, 422)


async def test_who_hangs_up_has_the_rest_cancelled(settings, ink, png):
    engine = Held(ink)
    app = create_app(settings, lambda artifact, provider, threads: engine)
    services = app.state.services
    request = httpx.Request("POST", "http://karyon/v1/segment/batch", files=form(*[png] * 12))
    async with app.router.lifespan_context(app):
        services.lifecycle.wait_started(60)
        before = engine.patches
        engine.go.clear()
        gone, sent = asyncio.Event(), []
        body = [{"type": "http.request", "body": request.read(), "more_body": False}]

        async def receive():
            if body:
                return body.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        call = asyncio.create_task(app(scope_of(request), receive, send))
        while engine.patches == before:
            await asyncio.sleep(0.01)
        gone.set()
        await call
        assert services.budget.held == services.room.inside == 0
        engine.go.set()
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert engine.patches == before + 1


async def test_who_does_not_read_the_answer_holds_neither_place_nor_body(settings, ink, png):
    app = create_app(settings.model_copy(update={"stall_s": 0.2}), lambda artifact, provider, threads: ink)
    services = app.state.services
    request = httpx.Request("POST", "http://karyon/v1/segment/batch", files=form(png, png))
    async with app.router.lifespan_context(app):
        services.lifecycle.wait_started(60)
        body = [{"type": "http.request", "body": request.read(), "more_body": False}]

        async def receive():
            return body.pop() if body else await asyncio.Event().wait()

        async def send(message):
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        async with asyncio.timeout(60):
            await app(scope_of(request), receive, send)
        assert services.budget.held == services.room.inside == 0


def scope_of(request: httpx.Request) -> dict[str, object]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": "http",
        "path": request.url.path, "raw_path": request.url.raw_path, "query_string": b"", "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw], "client": ("1.2.3.4", 5),
        "server": ("karyon", 80),
    }  # fmt: skip
