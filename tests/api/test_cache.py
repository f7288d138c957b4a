"""An answer that was given before is given again: the same one, to the same caller, as long as it fits."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api.cache import OVERHEAD, Question, ResultCache, Written
from app.settings import ApiKey
from tests.drawn import draw_tissue

pytestmark = pytest.mark.anyio
ROOM = 64 * 2**20
SECRET = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"


async def looked_up(service) -> dict[str, float]:
    text = (await service.http.get("/metrics")).text
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    found = {one.labels["result"]: one.value for one in families["nuclei_cache_requests"] if one.name.endswith("total")}
    return found | {"bytes": families["nuclei_cache_bytes"][0].value}


@pytest.mark.parametrize(
    "kind", ["application/geo+json", "application/json", "image/png", "text/csv", "application/vnd.hovernet+json"]
)
async def test_a_kept_answer_equals_the_fresh_one_but_for_the_request(serving, png, ink, kind):
    async with serving(cache_bytes=ROOM) as service:
        fresh = await service.segment(png, headers={"Accept": kind, "X-Request-Id": "first"})
        runs = len(ink.calls)
        kept = await service.segment(png, headers={"Accept": kind, "X-Request-Id": "the-second.one"})
    assert (fresh.status_code, len(ink.calls)) == (200, runs)
    assert kept.content == fresh.content.replace(b'"request_id":"first"', b'"request_id":"the-second.one"')
    own = {"x-request-id", "server-timing", "content-length"}
    assert {k: v for k, v in kept.headers.items() if k not in own} == {
        k: v for k, v in fresh.headers.items() if k not in own
    }


async def test_look_ups_and_bytes_are_counted(serving, png):
    async with serving(cache_bytes=ROOM) as service:
        answers = [await service.segment(png) for _ in range(3)]
        assert await looked_up(service) == {"hit": 2, "miss": 1, "bytes": len(answers[0].content) + OVERHEAD}


async def test_another_question_is_another_answer(serving, png, encoded, ink):
    async with serving(cache_bytes=ROOM, api_keys=(ApiKey("ward3", SECRET),), allow_anonymous=True) as service:
        await service.segment(png)
        for parts in (
            {"params": {"mpp": 0.5}},
            {"params": {"profile": "accurate"}},
            {"headers": {"Accept": "text/csv"}},
            {"headers": {"X-API-Key": "secret"}},
        ):
            await service.segment(png, **parts)
        await service.segment(encoded(draw_tissue(255, 300), compress_level=1))
        assert (await looked_up(service))["hit"] == 0


async def test_bulk_is_not_kept_and_by_default_nothing_is(serving, png):
    async with serving(cache_bytes=ROOM) as service:
        for _ in range(2):
            await service.segment(png, headers={"X-Request-Class": "bulk"})
        assert await looked_up(service) == {"hit": 0, "miss": 0, "bytes": 0}
    async with serving() as service:
        for _ in range(2):
            await service.segment(png)
        assert await looked_up(service) == {"hit": 0, "miss": 0, "bytes": 0}


async def test_a_refusal_is_not_kept(serving, png):
    async with serving(cache_bytes=ROOM) as service:
        assert [(await service.segment(png[:-9])).status_code for _ in range(2)] == [422, 422]
        assert (await looked_up(service))["bytes"] == 0


def written(size: int) -> Written:
    return Written(bytes(size), {}, "r", "b", 0)


def asked(number: int) -> Question:
    return Question("t", str(number), None, "fast", "text/csv", "m", "c")


def test_what_was_asked_longest_ago_makes_room_and_what_never_fits_is_not_kept():
    cache = ResultCache(3 * (100 + OVERHEAD))
    for number in (1, 2, 3):
        cache.put(asked(number), written(100))
    assert cache.get(asked(1), "r")
    cache.put(asked(4), written(100))
    cache.put(asked(5), written(4000))
    assert [bool(cache.get(asked(number), "r")) for number in range(1, 6)] == [True, False, True, True, False]
    assert cache.bytes <= 3 * (100 + OVERHEAD)
