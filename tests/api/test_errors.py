"""Every refusal is a problem with a documented type, and the service goes on."""

from __future__ import annotations

import asyncio
import struct
from contextlib import ExitStack

import pytest

from app.api.errors import ANSWER, Answer, Unauthenticated, answer_to
from app.nuclei import errors as domain
from app.nuclei.errors import Refusal
from app.serving.budget import Claim
from app.serving.work import WorkClass
from app.settings import ApiKey

pytestmark = pytest.mark.anyio
TABLE = {  # status and slug, as published
    "unauthenticated": 401, "forbidden": 403, "not-found": 404, "unknown-model": 404, "not-acceptable": 406,
    "request-timeout": 408, "conflict": 409, "payload-too-large": 413,
    "unsupported-media-type": 415, "invalid-image": 422, "invalid-parameter": 422, "mpp-required": 422,
    "viewport-too-dense": 422, "not-dicom": 422, "inference-failed": 500,
    "missing-extra": 501, "overloaded": 503, "not-ready": 503, "draining": 503,
    "storage-full": 507,
    "device-fault": 503, "deadline-exceeded": 504, "tenant-quota": 429, "deadline-unattainable": 503,
}  # fmt: skip
HUGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 100_000, 100_000, 8, 2, 0, 0, 0, 0)


def leaves(kind: type[Refusal]) -> set[type[Refusal]]:
    below = kind.__subclasses__()
    return {leaf for sub in below for leaf in leaves(sub)} if below else {kind}


def test_every_refusal_has_an_answer():
    assert leaves(Refusal) == set(ANSWER)


def test_the_table_is_the_published_one():
    assert {answer.slug: answer.status for answer in ANSWER.values()} == TABLE


@pytest.mark.parametrize("kind", ANSWER, ids=lambda kind: kind.__name__)
def test_a_refusal_is_answered_by_its_row(kind):
    error = kind("mpp", "text") if kind is domain.InvalidParameter else kind("text")
    assert answer_to(error) == ANSWER[kind]


def check(answer, status: int, slug: str) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    expected = {"type": f"urn:karyon:problem:{slug}", "status": status, "instance": answer.headers["x-request-id"]}
    assert answer.status_code == status
    assert problem | expected == problem
    assert problem.keys() - {"retry_after_seconds", "errors"} == {"type", "title", "status", "detail", "instance"}
    assert answer.headers["karyon-notice"] == "research-use-only"
    return problem


@pytest.mark.parametrize(
    ("spoil", "status", "slug"),
    [
        (lambda png: b"", 422, "invalid-image"),
        (lambda png: png[: len(png) // 2], 422, "invalid-image"),
        (lambda png: png[:-1], 422, "invalid-image"),
        (lambda png: b"this is a text file that someone called tile.png", 415, "unsupported-media-type"),
        (lambda png: HUGE, 413, "payload-too-large"),
    ],
    ids=["empty", "half", "one byte short", "text", "100,000 x 100,000"],
)
async def test_a_bad_image_is_refused_and_the_next_one_is_served(service, png, spoil, status, slug):
    check(await service.segment(spoil(png)), status, slug)
    assert (await service.segment(png)).status_code == 200


async def test_a_truncated_jpeg_is_refused(service, tissue, encoded):
    data = encoded(tissue, "jpeg")
    check(await service.segment(data[: len(data) // 2], "image/jpeg"), 422, "invalid-image")


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "image/gif", "application/octet-stream"])
async def test_another_content_type_is_refused(service, png, kind):
    check(await service.segment(png, kind), 415, "unsupported-media-type")


@pytest.mark.parametrize("packed", ["gzip", "br", "deflate", "gzip, identity", "GZIP"])
async def test_a_packed_body_is_refused_and_a_plain_one_that_says_so_is_not(service, png, packed):
    problem = check(await service.segment(png, headers={"Content-Encoding": packed}), 415, "unsupported-media-type")
    assert "Content-Encoding" in problem["detail"]
    assert (await service.segment(png, headers={"Content-Encoding": "identity"})).status_code == 200


@pytest.mark.parametrize("mpp", ["0", "-0.5", "nan", "inf", "1e9", "1e-9", "half", ""])
async def test_an_impossible_scale_is_refused_by_name(service, png, mpp):
    problem = check(await service.segment(png, params={"mpp": mpp}), 422, "invalid-parameter")
    assert [fault["parameter"] for fault in problem["errors"]] == ["mpp"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("profile=best", "profile"),
        ("mmp=0.5", "mmp"),
        ("mpp=0.5&mpp=0.25", "mpp"),
        ("%3Cb%3E=1", "?"),
        ("model=", "model"),
        ("mpp=0.5&model=", "model"),
        ("profile=", "profile"),
    ],
)
async def test_an_impossible_parameter_is_refused_by_name(service, png, query, name):
    problem = check(await service.segment(png, params=query), 422, "invalid-parameter")
    assert [fault["parameter"] for fault in problem["errors"]] == [name]


@pytest.mark.parametrize("model", ["nobody", "ink@7", "../ink", "ink/1", "@", "ink@../1"])
async def test_an_unknown_model_is_refused(service, png, model):
    check(await service.segment(png, params={"model": model}), 404, "unknown-model")


async def test_a_damaged_model_is_not_served(service, png, store, ink, tissue, model_builder):
    folder = model_builder(store / "ink" / "2", ink, tissue[:200, :200])
    (folder / "ink.onnx").write_bytes(b"other weights")
    check(await service.segment(png, params={"model": "ink@2"}), 503, "not-ready")
    assert (await service.segment(png)).status_code == 200


async def test_what_cannot_be_written_is_refused(service, png):
    check(await service.segment(png, headers={"Accept": "application/dicom"}), 406, "not-acceptable")


async def test_an_unknown_address_is_a_problem(service):
    check(await service.http.get("/v2/anything"), 404, "not-found")


async def test_a_wrong_method_is_a_problem_that_names_the_right_one(service):
    answer = await service.http.get("/v1/segment")
    check(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("address", "methods"),
    [
        ("/v1/slides", "GET, HEAD, POST"),
        ("/v1/slides/0", "DELETE, GET, HEAD, PATCH"),
        ("/v1/jobs/0", "DELETE, GET, HEAD"),
        ("/v1/models", "GET, HEAD"),
        ("/healthz/live", "GET, HEAD"),
        ("/viewer/", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_all_that_an_address_takes(service, address, methods):
    answer = await service.http.put(address)
    check(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == methods


async def test_a_form_without_an_image_is_refused(service, png):
    answer = await service.http.post("/v1/segment", files={"picture": ("a.png", png, "image/png")})
    assert check(answer, 422, "invalid-parameter")["errors"][0]["parameter"] == "image"


async def test_an_announced_length_above_the_limit_is_refused_before_the_body_is_read(serving, png):
    async with serving(max_bytes=1000) as service:
        check(await service.segment(png), 413, "payload-too-large")


async def test_a_body_of_unknown_length_is_refused_while_it_arrives(serving):
    sent = []

    async def endless():
        while True:
            sent.append(500)
            yield bytes(500)

    async with serving(max_bytes=1000) as service:
        check(await service.segment(endless()), 413, "payload-too-large")
    assert sum(sent) <= 2000


async def test_a_body_that_stops_arriving_is_not_awaited_for_ever(serving, png):
    async def stalling():
        yield png[:100]
        await asyncio.sleep(60)
        yield png[100:]

    async with serving(stall_s=0.05) as service:
        check(await service.segment(stalling()), 408, "request-timeout")


async def test_bodies_take_no_more_memory_together_than_they_may(serving, png):
    first_came, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        yield png[:-1]
        first_came.set()
        await go_on.wait()
        yield png[-1:]

    async with serving(max_bytes_held=len(png) + 10) as service:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(service.segment(slow()))
            await first_came.wait()
            check(await service.segment(png), 503, "overloaded")
            go_on.set()
        assert first.result().status_code == 200
        assert (await service.segment(png)).status_code == 200  # all of it came back


async def test_an_image_that_grows_beyond_the_limit_at_the_models_scale_is_refused(serving, png):
    async with serving(max_pixels=300 * 255) as service:
        assert (await service.segment(png, params={"mpp": 0.5})).status_code == 200
        check(await service.segment(png, params={"mpp": 1.0}), 413, "payload-too-large")


async def test_without_a_known_key_nobody_is_served(serving, png):
    keys = (ApiKey("ward3", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"),)  # of "secret"
    async with serving(api_keys=keys) as service:
        answer = await service.segment(png)
        check(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="karyon"'
        check(await service.http.get("/v1/models", headers={"X-API-Key": "wrong"}), 401, "unauthenticated")
        for header in ({"Authorization": "Bearer secret"}, {"X-API-Key": "secret"}):
            assert (await service.segment(png, headers=header)).status_code == 200
        assert (await service.http.get("/healthz/ready")).status_code == 200


class Fused:
    """An engine that fails once the golden pair is behind it."""

    def __init__(self, engine) -> None:
        self.engine, self.fuse = engine, False

    def predict(self, patches):
        if self.fuse:
            raise RuntimeError("/secret/path: CUDA failure")
        return self.engine.predict(patches)


async def test_a_fault_of_the_model_costs_one_request_and_leaks_nothing(serving, png, ink):
    engine = Fused(ink)
    async with serving(engine=engine) as service:
        engine.fuse = True
        answer = await service.segment(png)
        check(answer, 500, "inference-failed")
        assert "secret" not in answer.text
        engine.fuse = False
        assert (await service.segment(png)).status_code == 200


async def test_a_programming_error_is_a_problem_that_leaks_nothing(service, png):
    service.app.state.services = None  # every route stumbles over it
    answer = await service.segment(png)
    assert "NoneType" not in check(answer, 500, "internal-error")["detail"]


async def test_while_the_service_stops_it_takes_nothing_new(service, png):
    service.app.state.services.lifecycle.drain()
    for answer in (await service.segment(png), await service.http.get("/healthz/ready")):
        assert check(answer, 503, "draining")["retry_after_seconds"] == 5
        assert answer.headers["retry-after"] == "5"


async def test_a_full_house_is_told_when_to_come_back(service, png, settings):
    room = service.app.state.services.room
    with ExitStack() as others:
        for _ in range(settings.waiting_room):
            others.enter_context(room.admit())
        answer = await service.segment(png)
    problem = check(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == str(problem["retry_after_seconds"])
    assert (await service.segment(png)).status_code == 200


async def test_bulk_that_finds_the_queue_full_is_refused_before_its_body_is_read(serving):
    async with serving(max_queue_cost=10.0) as service:
        budget, sent = service.app.state.services.budget, 0

        async def body():
            nonlocal sent
            sent += 1
            yield b"x" * 1000

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        with budget.reserve(Claim("other", WorkClass.BULK, 7.0)):
            answer = await service.http.post("/v1/segment/batch", content=body(), headers=headers)
    check(answer, 503, "overloaded")
    assert sent == 0


def test_a_slug_names_one_kind_of_problem_each():
    assert len({answer.slug for answer in ANSWER.values()}) == len(ANSWER)
    assert ANSWER[Unauthenticated] == Answer(401, "unauthenticated", "No valid API key")
