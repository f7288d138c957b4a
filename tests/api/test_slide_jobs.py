"""A slide is analysed in the background, watched, cancelled, and goes on after a restart."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import threading
from dataclasses import asdict, replace

import pytest

from app.nuclei.hover import NATIVE
from app.nuclei.segmenter import Segmenter
from app.settings import ApiKey
from app.slides.reading import list_tiles, tile_details, totals, walk
from tests.drawn import InkEngine, draw_tissue

pytestmark = pytest.mark.anyio
IMAGE = draw_tissue(700, 900, seed=5)
OCTETS = {"Content-Type": "application/octet-stream"}
ENDED = ("done", "failed", "cancelled")
COUNTED = "nuclei_instances_total{"


@pytest.fixture
def slide_png(encoded):
    return encoded(IMAGE)


def slug(response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


async def upload(service, content, mpp=0.5, **headers):
    params = {"filename": "slide.png"} | ({"mpp": mpp} if mpp else {})
    made = await service.http.post("/v1/slides", params=params, content=content, headers=OCTETS | headers)
    assert made.status_code == 201, made.text
    return made.headers["location"]


async def start(service, slide, **body):
    answer = await service.http.post(f"{slide}/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


async def ended(service, job, **headers):
    async with asyncio.timeout(60):
        while (state := (await service.http.get(job, headers=headers)).json())["state"] not in ENDED:
            await asyncio.sleep(0.05)
    return state


def database_of(service):
    return service.app.state.services.slides.library.store.database


class Held(InkEngine):
    """Waits for a sign once the model has proven itself."""

    def __init__(self):
        super().__init__()
        self.hold, self.go, self.reached = False, threading.Event(), threading.Event()

    def predict(self, patches):
        if self.hold:
            self.reached.set()
            assert self.go.wait(60)
        return super().predict(patches)


async def held_job(service, engine, slide):
    engine.hold = True
    job = await start(service, slide)
    async with asyncio.timeout(30):
        while not engine.reached.is_set():
            await asyncio.sleep(0.02)
    return job


async def test_a_job_finds_the_nuclei_of_the_slide(serving, slide_png, ink):
    async with serving(slide_window=300) as service:
        slide = await upload(service, slide_png)
        job = await start(service, slide)
        state = await ended(service, job)
        assert (state["state"], state["problem"], state["done"]) == ("done", None, state["total"])
        assert state["total"] > 1
        artifact = service.app.state.services.models.find("ink").artifact
        whole = Segmenter(artifact, ink).segment(IMAGE, 0.5, "fast")
        found = totals(database_of(service), slide[-32:])
        assert dict(zip(whole.counts, found.counts, strict=True)) == whole.counts
        metrics = (await service.http.get("/metrics")).text
        counted = sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(COUNTED))
        assert counted >= sum(whole.counts.values())  # windows overlap
        shown = (await service.http.get(slide)).json()
        assert (shown["jobs"], shown["model"]["name"]) == ([{"id": state["id"], "state": "done"}], "ink")


async def test_windows_say_where_they_come_from_and_nuclei_have_ids_of_their_own(serving, slide_png):
    async with serving(slide_window=300) as service:
        slide = (await upload(service, slide_png)).rpartition("/")[2]
        job = await ended(service, await start(service, f"/v1/slides/{slide}", profile="accurate"))
        database = database_of(service)
        tile = list_tiles(database, slide)[0]
        _, provenance = tile_details(database, tile.id)
    assert (provenance["request_id"], provenance["profile"], provenance["input"]["mpp"]) == (job["id"], "accurate", 0.5)
    assert provenance["input"]["sha256"] == tile.content_sha256


async def test_a_slide_without_scale_is_refused_until_somebody_says_it(service, slide_png):
    slide = await upload(service, slide_png, mpp=None)
    assert slug(await service.http.post(f"{slide}/jobs", json={})) == (422, "mpp-required")
    assert slug(await service.http.post(f"{slide}/jobs", json={"mpp": 99})) == (422, "invalid-parameter")
    state = await ended(service, await start(service, slide, mpp=0.5))
    assert (state["state"], (await service.http.get(slide)).json()["mpp_x"]) == ("done", 0.5)


async def test_what_cannot_be_started_is_refused(service, slide_png):
    slide, blank = await upload(service, slide_png), {"width": 10, "height": 10, "mpp": 0.5}
    for body in (
        {"region": [0, 0, 10]},
        {"region": [10, 10, 5, 20]},
        {"region": [900, 0, 910, 10]},
        {"profile": "best"},
        {"colour": 1},
        {"mpp": "0.5"},
    ):
        assert slug(await service.http.post(f"{slide}/jobs", json=body)) == (422, "invalid-parameter"), body
    assert slug(await service.http.post(f"{slide}/jobs", json={"model": "nobody"})) == (404, "unknown-model")
    assert slug(await service.http.post(f"{slide}/jobs", content=b"{}", headers=OCTETS)) == (
        *(415, "unsupported-media-type"),
    )
    tiles_only = (await service.http.post("/v1/slides", json=blank)).headers["location"]
    assert slug(await service.http.post(f"{tiles_only}/jobs")) == (404, "not-found")
    for method, address in (("POST", "/v1/slides/0/jobs"), ("GET", "/v1/jobs/0"), ("DELETE", "/v1/jobs/0")):
        assert slug(await service.http.request(method, address)) == (404, "not-found")
    assert slug(await service.http.get("/v1/jobs/0/events")) == (404, "not-found")


async def test_a_slide_has_one_job_at_a_time_and_one_model(serving, slide_png, store, model_builder, ink, tissue):
    model_builder(
        store / "ink" / "2", ink, tissue[:128, :128], postprocess=asdict(replace(NATIVE, nucleus_threshold=0.4))
    )
    engine = Held()
    async with serving(engine=engine) as service:
        slide = await upload(service, slide_png)
        job = await held_job(service, engine, slide)
        assert slug(await service.http.post(f"{slide}/jobs")) == (409, "conflict")
        engine.go.set()
        assert (await ended(service, job))["state"] == "done"
        assert slug(await service.http.post(f"{slide}/jobs", json={"model": "ink@2"})) == (409, "conflict")
        assert slug(await service.http.post(f"{slide}/jobs", json={"profile": "accurate"})) == (409, "conflict")
        assert slug(await service.http.post(f"{slide}/jobs", json={"mpp": 0.25})) == (409, "conflict")
        assert (await ended(service, await start(service, slide)))["state"] == "done"


async def test_a_cancelled_job_ends_and_its_slide_is_free_again(serving, slide_png):
    engine = Held()
    async with serving(engine=engine) as service:
        slide = await upload(service, slide_png)
        job = await held_job(service, engine, slide)
        cancelled = await service.http.delete(job)
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        engine.go.set()
        state = await ended(service, await start(service, slide))
        assert state["state"] == "done"
        assert (await service.http.delete(job)).json()["state"] == "cancelled"
        assert (await service.http.get(job)).json()["finished"] is not None


async def test_a_slide_deleted_meanwhile_takes_its_job_along(serving, slide_png, settings):
    engine = Held()
    async with serving(engine=engine) as service:
        slide = await upload(service, slide_png)
        job = await held_job(service, engine, slide)
        assert (await service.http.delete(slide)).status_code == 204
        engine.go.set()
        assert slug(await service.http.get(job)) == (404, "not-found")
        other = await upload(service, slide_png)
        assert (await ended(service, await start(service, other)))["state"] == "done"
    assert len([path for path in settings.slide_folder.rglob("slide.png")]) == 1


async def test_a_job_goes_on_where_it_was_when_the_service_starts_again(serving, slide_png):
    engine = Held()
    async with serving(engine=engine, slide_window=200) as service:
        slide = await upload(service, slide_png)
        job = await held_job(service, engine, slide)
        threading.Timer(1.0, engine.go.set).start()  # the batch on the device ends while the service stops
    again = InkEngine()
    async with serving(engine=again, slide_window=200) as service:
        assert (await ended(service, job))["state"] == "done"
        assert (await ended(service, await start(service, slide)))["total"] == len(
            list_tiles(database_of(service), slide[-32:])
        )


async def test_a_file_that_vanishes_fails_the_job_with_a_problem(serving, slide_png, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.png").write_bytes(slide_png)
    engine = Held()
    async with serving(engine=engine, slide_root=tmp_path / "root") as service:
        made = await service.http.post("/v1/slides", json={"path": "a.png", "mpp": 0.5})
        other = await upload(service, slide_png)
        blocking = await held_job(service, engine, other)
        job = await start(service, made.headers["location"])
        (tmp_path / "root" / "a.png").unlink()
        engine.go.set()
        await ended(service, blocking)
        state = await ended(service, job)
        assert (state["state"], state["problem"]["type"]) == ("failed", "urn:karyon:problem:not-found")
        assert str(tmp_path) not in json.dumps(state)
        assert slug(await service.http.post(f"{made.headers['location']}/jobs")) == (404, "not-found")


async def test_a_full_store_fails_the_job_and_a_new_one_goes_on(serving, slide_png):
    async with serving(slide_window=200, store_quota=len(slide_png) + 20_000) as service:
        slide = await upload(service, slide_png)
        state = await ended(service, await start(service, slide))
        assert (state["state"], state["problem"]["type"]) == ("failed", "urn:karyon:problem:storage-full")
        assert 0 < state["done"] < state["total"]
        kept = list_tiles(database_of(service), slide[-32:])
    async with serving(slide_window=200) as service:
        state = await ended(service, await start(service, slide))
        assert (state["state"], state["done"]) == ("done", state["total"])
        assert {tile.id for tile in kept} < {tile.id for tile in list_tiles(database_of(service), slide[-32:])}


async def test_a_job_is_watched_until_it_has_ended(serving, slide_png):
    engine = Held()
    async with serving(engine=engine, slide_window=200) as service:
        job = await held_job(service, engine, await upload(service, slide_png))
        watching = asyncio.create_task(service.http.get(f"{job}/events", timeout=60))
        await asyncio.sleep(0.2)
        engine.go.set()
        sent = await watching
        assert sent.headers["content-type"].startswith("text/event-stream")
        told = [json.loads(line.removeprefix("data: ")) for line in sent.text.splitlines() if line.startswith("data: ")]
        assert (told[0]["state"], told[-1]["state"]) == ("running", "done")
        assert [one["done"] for one in told] == sorted(one["done"] for one in told)
        assert any(one["rate"] for one in told[:-1]) or len(told) == 2
        last = [line.removeprefix("id: ") for line in sent.text.splitlines() if line.startswith("id: ")][-1]
        again = await service.http.get(f"{job}/events", headers={"Last-Event-ID": last})
        assert again.status_code == 204
        assert (await service.http.get(f"{job}/events", headers={"Last-Event-ID": "?"})).status_code == 200


async def test_a_job_of_another_key_is_not_there(serving, slide_png):
    keys = tuple(ApiKey(name, hashlib.sha256(name.encode()).hexdigest()) for name in ("one", "two"))
    async with serving(api_keys=keys) as service:
        slide = await upload(service, slide_png, **{"X-API-Key": "one"})
        job = (await service.http.post(f"{slide}/jobs", headers={"X-API-Key": "one"})).headers["location"]
        for method, address in (("GET", job), ("DELETE", job), ("GET", f"{job}/events"), ("POST", f"{slide}/jobs")):
            refused = await service.http.request(method, address, headers={"X-API-Key": "two"})
            assert slug(refused) == (404, "not-found")
        assert (await ended(service, job, **{"X-API-Key": "one"}))["state"] == "done"


async def test_a_region_is_analysed_alone(serving, slide_png):
    async with serving(slide_window=200) as service:
        slide = await upload(service, slide_png)
        await ended(service, await start(service, slide, region=[100, 100, 400, 300]))
        centres = [c for each in walk(database_of(service), slide[-32:]) for c in each.nuclei.centroid]
        assert len(centres) > 50
        assert all(100 <= x < 400 and 100 <= y < 300 for x, y in centres)


async def test_while_the_model_is_loaded_no_job_is_taken(serving, slide_png, tmp_path):
    engine = Held()
    engine.hold = True
    async with serving(engine=engine, wait=False) as service:
        slide = await upload(service, slide_png)
        assert slug(await service.http.post(f"{slide}/jobs")) == (503, "not-ready")
        engine.go.set()
    shutil.rmtree(tmp_path / "slides", ignore_errors=True)
