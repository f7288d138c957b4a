"""Slides come in three ways, are found by those they belong to, and leave without a trace."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shutil
import struct
import time
import zlib
from contextlib import suppress
from glob import glob

import pytest
import tifffile
from sqlalchemy import update

from app.api import slideservices
from app.settings import ApiKey
from app.slides.schema import slides
from tests.drawn import draw_tissue
from tests.slides.test_sources import HOSTILE

pytestmark = pytest.mark.anyio
OCTETS = {"Content-Type": "application/octet-stream"}
BLANK = {"width": 4000, "height": 3000, "mpp": 0.5}


def slug(response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


def files_of(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith("store."))


async def upload(service, content, filename="slide.png", **parts):
    headers = OCTETS | parts.pop("headers", {})
    return await service.http.post(
        "/v1/slides", params={"filename": filename} | parts.pop("params", {}), content=content, headers=headers, **parts
    )


async def test_a_slide_for_tiles_to_come_is_registered_and_found(service):
    made = await service.http.post("/v1/slides", json=BLANK)
    assert made.status_code == 201
    found = await service.http.get(made.headers["location"])
    assert found.json() == made.json() | {"jobs": []}
    assert (found.json()["origin"], found.json()["width"], found.json()["mpp_x"]) == ("tiles", 4000, 0.5)


async def test_an_uploaded_file_becomes_a_slide(service, settings, png):
    made = await upload(service, png, "patient Müller.PNG", params={"mpp": 0.25})
    assert made.status_code == 201, made.text
    assert (made.json()["format"], made.json()["bytes"], made.json()["mpp_x"]) == ("png", len(png), 0.25)
    assert "ller" not in made.text
    assert files_of(settings.slide_folder) == ["slide.png"]


async def test_a_file_below_the_root_becomes_a_slide_and_stays_where_it_is(serving, tmp_path, png):
    (tmp_path / "root" / "case").mkdir(parents=True)
    (tmp_path / "root" / "case" / "a.png").write_bytes(png)
    async with serving(slide_root=tmp_path / "root") as service:
        made = await service.http.post("/v1/slides", json={"path": "case/a.png"})
        assert (made.status_code, made.json()["path"], made.json()["mpp_x"]) == (201, "case/a.png", None)
        assert (await service.http.delete(made.headers["location"])).status_code == 204
    assert (tmp_path / "root" / "case" / "a.png").exists()


async def test_no_path_leads_out_of_the_root(serving, tmp_path, png):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes(png)
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    async with serving(slide_root=tmp_path / "root") as service:
        for path in ("link.png", "folder/secret.png", "nothing.png"):
            assert slug(await service.http.post("/v1/slides", json={"path": path})) == (404, "not-found")
        for path in ("../secret.png", str(tmp_path / "secret.png"), "a\0.png", "..\\secret.png", ""):
            refused = await service.http.post("/v1/slides", json={"path": path})
            assert slug(refused) == (422, "invalid-parameter")
            assert str(tmp_path) not in refused.text


async def test_without_a_root_nothing_is_read_by_path(service):
    assert slug(await service.http.post("/v1/slides", json={"path": "a.png"})) == (404, "not-found")


NONSENSE = (
    b"{}",
    b"[]",
    b"{",
    b'{"width": 10}',
    b'{"width": 0, "height": 10}',
    b'{"width": 10.5, "height": 10}',
    b'{"width": "10", "height": 10}',
    b'{"width": 10, "height": 10, "path": "a.png"}',
    b'{"width": 10, "height": 10, "mpp": -1}',
    b'{"width": 10, "height": 10, "mpp": 9}',
    b'{"width": 10, "height": 10, "mpp": NaN}',
    b'{"width": 10, "height": 10, "colour": 1}',
    b'{"width": 99999999999999999999, "height": 10}',
)


async def test_a_description_that_makes_no_sense_is_refused(service):
    for body in NONSENSE:
        refused = await service.http.post("/v1/slides", content=body, headers={"Content-Type": "application/json"})
        assert slug(refused) == (422, "invalid-parameter"), refused.text
    endless = b'{"path": "' + b"a" * 70000 + b'"}'
    refused = await service.http.post("/v1/slides", content=endless, headers={"Content-Type": "application/json"})
    assert slug(refused) == (413, "payload-too-large")


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", "/v1/slides?mpp=0.25"),
        ("GET", "{slide}?mpp=0.25"),
        ("PATCH", "{slide}?mpp=0.25"),
        ("DELETE", "{slide}?now=1"),
        ("POST", "{slide}/jobs?profile=accurate"),
        ("GET", "/v1/jobs/0?wait=1"),
        ("DELETE", "/v1/jobs/0?wait=1"),
        ("GET", "/v1/jobs/0/events?wait=1"),
    ],
)
async def test_what_belongs_into_the_body_does_not_pass_as_said_in_the_address(service, method, address):
    made = await service.http.post("/v1/slides", json={"width": 10, "height": 10})
    body = {"json": {"width": 10, "height": 10}} if method in ("POST", "PATCH") else {}
    refused = await service.http.request(method, address.format(slide=made.headers["location"]), **body)
    assert slug(refused) == (422, "invalid-parameter")
    assert "this address takes none" in refused.json()["detail"]
    assert len((await service.http.get("/v1/slides")).json()["slides"]) == 1


async def test_a_slide_a_job_and_the_models_may_be_asked_for_their_heads(serving, png):
    async with serving() as service:
        slide = (await upload(service, png, params={"mpp": 0.5})).headers["location"]
        job = (await service.http.post(f"{slide}/jobs")).headers["location"]
        for address in (slide, job, "/v1/slides", "/v1/models"):
            head = await service.http.head(address)
            assert (head.status_code, head.content) == (200, b""), address


async def test_a_picture_beyond_what_can_be_decoded_is_told_what_to_become(service, settings):
    for width in (10_000, 100_000):
        header = struct.pack(">IIBBBBB", width, 10_000, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        huge = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        refused = await upload(service, huge + b"\0\0\0\0IDAT")
        assert slug(refused) == (413, "payload-too-large")
        assert "save it as a tiled TIFF" in refused.json()["detail"]
    assert files_of(settings.slide_folder) == []


async def test_what_is_no_slide_is_refused_and_leaves_nothing(service, settings, png):
    assert slug(await upload(service, png[:300])) == (422, "invalid-image")
    assert slug(await upload(service, b"")) == (422, "invalid-image")
    assert slug(await upload(service, b"text", "a.tif")) == (415, "unsupported-media-type")
    assert slug(await upload(service, png, "a.txt")) == (415, "unsupported-media-type")
    assert slug(await upload(service, png, params={"mpp": 7})) == (422, "invalid-parameter")
    assert slug(await upload(service, png, headers={"Content-Type": "image/png"})) == (415, "unsupported-media-type")
    assert files_of(settings.slide_folder) == []
    assert (await service.http.get("/v1/slides")).json() == {"slides": [], "next": None}


async def test_a_hostile_file_is_refused_and_leaves_nothing(service, settings):
    for name, (content, _) in HOSTILE.items():
        refused = await upload(service, content, "a.tif")
        assert refused.status_code in (413, 415, 422), name
        assert refused.headers["content-type"] == "application/problem+json"
    assert files_of(settings.slide_folder) == []


async def test_an_upload_may_be_larger_than_a_tile_and_not_larger_than_a_slide(serving, png):
    async with serving(max_bytes=100, slide_max_bytes=len(png)) as service:
        assert (await upload(service, png)).status_code == 201
        assert slug(await upload(service, png + b"1")) == (413, "payload-too-large")


async def test_an_upload_beyond_the_quota_is_refused_until_room_is_made(serving, png):
    async with serving(store_quota=len(png) + 100) as service:
        first = await upload(service, png)
        assert slug(await upload(service, png)) == (507, "storage-full")
        await service.http.delete(first.headers["location"])
        assert (await upload(service, png)).status_code == 201


async def test_an_upload_that_breaks_off_leaves_nothing(service, settings, png):
    sent = asyncio.Event()

    async def pieces():
        yield png[:100]
        sent.set()
        await asyncio.sleep(30)

    async with asyncio.timeout(10):
        task = asyncio.create_task(upload(service, pieces()))
        await sent.wait()
        task.cancel()
        await asyncio.wait([task])
    assert files_of(settings.slide_folder) == []


async def test_slides_are_listed_newest_first_page_by_page(service):
    made = [(await service.http.post("/v1/slides", json=BLANK)).json()["id"] for _ in range(5)]
    listed, after = [], None
    while True:
        page = (await service.http.get("/v1/slides", params={"limit": 2} | ({"after": after} if after else {}))).json()
        listed += [slide["id"] for slide in page["slides"]]
        if (after := page["next"]) is None:
            break
    assert (len(listed), set(listed)) == (5, set(made))
    assert slug(await service.http.get("/v1/slides?limit=0")) == (422, "invalid-parameter")
    assert slug(await service.http.get("/v1/slides?after=nobody")) == (404, "not-found")


async def test_a_slide_that_was_deleted_is_gone_with_its_file(service, settings, png):
    address = (await upload(service, png)).headers["location"]
    assert (await service.http.delete(address)).status_code == 204
    assert slug(await service.http.get(address)) == (404, "not-found")
    assert slug(await service.http.delete(address)) == (404, "not-found")
    assert files_of(settings.slide_folder) == []


async def test_a_scale_can_be_given_later(service, png):
    address = (await upload(service, png)).headers["location"]
    said = await service.http.patch(address, json={"mpp": 0.5})
    assert (said.status_code, said.json()["mpp_x"], said.json()["mpp_source"]) == (200, 0.5, "request")
    for body in ({"mpp": 50}, {}, {"mpp": "0.5"}):
        assert slug(await service.http.patch(address, json=body)) == (422, "invalid-parameter")


async def test_a_slide_of_another_key_is_not_there(serving, png):
    keys = tuple(ApiKey(name, hashlib.sha256(name.encode()).hexdigest()) for name in ("one", "two"))
    one, two = ({"X-API-Key": name} for name in ("one", "two"))
    async with serving(api_keys=keys) as service:
        address = (await upload(service, png, headers=one)).headers["location"]
        assert (await service.http.get(address, headers=one)).status_code == 200
        for method in ("GET", "DELETE"):
            assert slug(await service.http.request(method, address, headers=two)) == (404, "not-found")
        assert (await service.http.get("/v1/slides", headers=two)).json()["slides"] == []
        assert slug(await service.http.get(address)) == (401, "unauthenticated")


async def test_slides_survive_a_restart(serving, png):
    async with serving() as service:
        made = await upload(service, png)
    async with serving() as service:
        assert (await service.http.get(made.headers["location"])).json()["id"] == made.json()["id"]


async def test_slides_that_nobody_touched_for_long_are_deleted_at_the_start(serving, settings, png):
    async with serving() as service:
        made = await upload(service, png)
    time.sleep(0.01)
    async with serving(retention_days=1e-9) as service:
        async with asyncio.timeout(30):
            while (await service.http.get(made.headers["location"])).status_code == 200:
                await asyncio.sleep(0.02)
    assert files_of(settings.slide_folder) == []


async def test_an_expired_slide_that_was_looked_at_gives_its_room_back(serving, monkeypatch):
    monkeypatch.setattr(slideservices, "CLEAN_EVERY_S", 0.05)
    written = io.BytesIO()
    tifffile.imwrite(written, draw_tissue(512, 512), tile=(256, 256), photometric="rgb", ome=True)
    async with serving(retention_days=1.0) as service:
        where = (await upload(service, written.getvalue(), "slide.tif")).headers["location"]
        assert (await service.http.get(f"{where}/image_files/9/0_0.jpg")).status_code == 200
        assert held_open("slide.tif") != []
        with service.app.state.services.slides.library.store.database.write() as connection:
            connection.execute(update(slides).values(touched_ms=0))
        async with asyncio.timeout(30):
            while held_open("slide.tif"):
                await asyncio.sleep(0.02)
        assert (await service.http.get(where)).status_code == 404


def held_open(name: str) -> list[str]:
    """Files of a name that this process has open."""
    places = []
    for each in glob("/proc/self/fd/*"):
        with suppress(FileNotFoundError):  # closed meanwhile
            places.append(os.readlink(each))
    return [place for place in places if name in place]


async def test_a_service_that_is_sent_no_slide_writes_nothing(serving, settings):
    async with serving() as service:
        assert (await service.http.get("/healthz/ready")).status_code == 200
    assert not settings.slide_folder.exists()


async def test_a_store_that_cannot_be_opened_does_not_stop_the_rest(serving, tmp_path, png):
    (tmp_path / "slides").write_text("a file where a folder should be")
    async with serving() as service:
        assert slug(await service.http.get("/v1/slides")) == (503, "not-ready")
        assert (await service.segment(png)).status_code == 200
        os.remove(tmp_path / "slides")
        assert (await service.http.get("/v1/slides")).status_code == 200
    shutil.rmtree(tmp_path / "slides")
