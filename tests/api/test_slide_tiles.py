"""Tiles of a slide come in any order, from several clients, also twice; each nucleus counts once."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from app.formats.geojson import CUT
from app.nuclei.segmenter import Segmenter
from app.slides.reading import totals
from tests.drawn import draw_tissue

pytestmark = pytest.mark.anyio
IMAGE = draw_tissue(480, 600, seed=5)
SLIDE = {"width": 600, "height": 480, "mpp": 0.5}


def slug(response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


async def new_slide(service, **changes):
    return (await service.http.post("/v1/slides", json=SLIDE | changes)).headers["location"]


async def send(service, encoded, slide, x, y, side=200, margin=0, **parts):
    content = parts.pop("content", None) or encoded(np.ascontiguousarray(IMAGE[y : y + side, x : x + side]))
    params = {"x": x, "y": y} | ({"margin": margin} if margin else {}) | parts
    return await service.http.post(
        f"{slide}/tiles", params=params, content=content, headers={"Content-Type": "image/png"}
    )


def whole(service, ink):
    artifact = service.app.state.services.models.find("ink").artifact
    return Segmenter(artifact, ink).segment(IMAGE, 0.5, "fast")


def counted(service, slide):
    return totals(service.app.state.services.slides.library.store.database, slide[-32:])


async def test_tiles_without_margin_count_each_nucleus_once_and_mark_those_cut(service, encoded, ink):
    slide = await new_slide(service)
    places = [(x, y) for y in range(0, 480, 200) for x in range(0, 600, 200)]
    random.Random(3).shuffle(places)
    answers = [(await send(service, encoded, slide, x, y)).json() for x, y in places]
    found = counted(service, slide)
    assert found.counted == len(whole(service, ink).nuclei)
    features = [feature for one in answers for feature in one["features"]]
    assert sum(feature["properties"]["measurements"][CUT] for feature in features) > 0
    assert {tuple(one["tile"]["bbox"][:2]) for one in answers} == {(float(x), float(y)) for x, y in places}


async def test_overlapping_tiles_from_several_clients_give_the_nuclei_of_the_whole(service, encoded, ink):
    slide = await new_slide(service)
    places = [(x, y) for y in (0, 140, 260) for x in (0, 140, 280, 380)]
    random.Random(4).shuffle(places)
    sent = await asyncio.gather(*(send(service, encoded, slide, x, y, 220, 40) for x, y in places * 2))
    assert {one.status_code for one in sent} == {200}
    found = counted(service, slide)
    assert (found.tiles, found.counts) == (len(places), tuple(whole(service, ink).counts.values()))


async def test_a_tile_sent_twice_is_answered_alike_and_analysed_once(service, encoded, ink):
    slide = await new_slide(service)
    first = await send(service, encoded, slide, 200, 200)
    calls = len(ink.calls)
    assert (await send(service, encoded, slide, 200, 200)).content == first.content
    assert (len(ink.calls), counted(service, slide).tiles) == (calls, 1)


async def test_equal_tiles_at_two_places_have_nuclei_of_their_own(service, encoded):
    slide = await new_slide(service)
    content = encoded(np.ascontiguousarray(IMAGE[:200, :200]))
    one, other = [(await send(service, encoded, slide, x, 0, content=content)).json() for x in (0, 300)]
    ids = {feature["id"] for answer in (one, other) for feature in answer["features"]}
    assert len(ids) == len(one["features"]) + len(other["features"]) > 0
    shift = np.array(other["features"][-1]["geometry"]["coordinates"][0]).min(0)
    assert shift[0] >= 300
    assert one["coordinate_space"] | {"width": 600, "height": 480, "mpp_x": 0.5} == one["coordinate_space"]


async def test_a_tile_says_what_it_answers_for(service, encoded):
    slide = await new_slide(service)
    answer = (await send(service, encoded, slide, 100, 100, 200, 30)).json()
    assert (answer["tile"]["bbox"], answer["tile"]["core"]) == ([100, 100, 300, 300], [130, 130, 270, 270])
    assert answer["summary"]["total"] == len(answer["features"]) == sum(answer["summary"]["counts"].values())
    area = 140 * 140 * 0.25 / 1e6
    name, count = max(answer["summary"]["counts"].items(), key=lambda pair: pair[1])
    assert answer["summary"]["density_per_mm2"][name] == pytest.approx(count / area, abs=0.01)


async def test_a_tile_that_does_not_fit_is_refused(service, encoded):
    slide = await new_slide(service)
    for x, y, changes in ((-1, 0, {}), (600, 0, {}), (0, 480, {}), (0, 0, {"margin": -1}), (0, 0, {"margin": 200})):
        content = encoded(np.ascontiguousarray(IMAGE[:200, :200]))
        refused = await send(service, encoded, slide, x, y, content=content, **changes)
        assert slug(refused) == (422, "invalid-parameter"), (x, y, changes)
    content = encoded(np.ascontiguousarray(IMAGE[:200, :200]))
    assert slug(await send(service, encoded, slide, 450, 0, content=content)) == (422, "invalid-parameter")
    assert slug(await send(service, encoded, slide, 0, 0, content=content, mpp=0.5)) == (422, "invalid-parameter")
    assert slug(await send(service, encoded, slide, 0, 0, content=b"text")) == (415, "unsupported-media-type")
    assert slug(await send(service, encoded, "/v1/slides/nobody", 0, 0)) == (404, "not-found")
    assert counted(service, slide).tiles == 0


async def test_a_tile_of_another_profile_is_refused_once_there_are_results(service, encoded):
    slide = await new_slide(service)
    assert (await send(service, encoded, slide, 0, 0)).status_code == 200
    assert slug(await send(service, encoded, slide, 0, 0, profile="accurate")) == (409, "conflict")


async def test_tiles_of_a_slide_without_scale_say_that_it_was_assumed(service, encoded):
    slide = await new_slide(service, mpp=None)
    answer = (await send(service, encoded, slide, 0, 0)).json()
    assert "mpp_assumed" in answer["qc"]["codes"]
    assert slug(await service.http.patch(slide, json={"mpp": 0.5})) == (409, "conflict")


async def test_a_tile_beyond_the_quota_is_refused_and_not_kept(serving, encoded):
    async with serving(store_quota=1000) as service:
        slide = await new_slide(service)
        assert slug(await send(service, encoded, slide, 0, 0)) == (507, "storage-full")
        assert counted(service, slide).tiles == 0
