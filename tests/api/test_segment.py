"""One image in, its nuclei out, in every form that `Accept` can ask for."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.api import schemas
from app.api.analysis import WRITERS

pytestmark = pytest.mark.anyio
BLANK = np.full((200, 200, 3), 245, np.uint8)


async def test_a_tile_comes_back_as_geojson_with_every_nucleus(service, png):
    answer = await service.segment(png, params={"mpp": 0.5})
    found = answer.json()
    assert answer.headers["content-type"] == "application/geo+json"
    assert len(found["features"]) == found["summary"]["total"] == 132
    assert sum(found["summary"]["counts"].values()) == 132


async def test_the_summary_is_the_same_object_without_its_features(service, png):
    whole, summary = [
        (await service.segment(png, params={"mpp": 0.5}, headers={"Accept": kind, "X-Request-Id": "same"})).json()
        for kind in ("application/geo+json", "application/json")
    ]
    for volatile in (whole, summary):
        del volatile["provenance"]["created"]
    assert {k: v for k, v in whole.items() if k not in ("type", "features")} == summary


async def test_a_picture_has_the_size_of_the_image_and_says_what_made_it(service, png):
    answer = await service.segment(png, headers={"Accept": "image/png"})
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.mode, picture.size) == ("RGBA", (300, 255))
    assert answer.headers["model-version"].startswith("ink/1@sha256:")
    assert answer.headers["karyon-qc"] == "warn"
    assert answer.headers["karyon-qc-codes"] == "mpp_assumed"
    assert answer.headers["karyon-notice"] == "research-use-only"


async def test_a_table_has_a_row_per_nucleus(service, png):
    answer = await service.segment(png, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert len(answer.text.strip().splitlines()) == 1 + 132


async def test_hovernet_json_has_an_entry_per_nucleus(service, png):
    answer = await service.segment(png, headers={"Accept": "application/vnd.hovernet+json"})
    assert len(answer.json()["nuc"]) == 132


@pytest.mark.parametrize("kind", ["jpeg", "tiff", "png"])
async def test_each_format_is_read_whether_or_not_it_is_declared(service, tissue, encoded, kind):
    data = encoded(tissue, kind)
    declared = await service.segment(data, f"image/{kind}")
    undeclared = await service.segment(data, None)
    assert (declared.status_code, undeclared.status_code) == (200, 200)
    assert declared.json()["features"] == undeclared.json()["features"]


async def test_a_jpeg_that_is_declared_as_png_is_read_as_what_it_is(service, tissue, encoded):
    assert (await service.segment(encoded(tissue, "jpeg"), "image/png")).status_code == 200


async def test_a_form_gives_the_same_nuclei_as_a_body(service, png):
    form = await service.http.post("/v1/segment", files={"image": ("patient name.png", png, "image/png")})
    body = await service.segment(png)
    assert form.json()["features"] == body.json()["features"]
    assert "patient" not in form.text


async def test_coordinates_are_those_of_the_upright_image(service, tissue, encoded):
    exif = Image.Exif()
    exif[0x0112] = 6
    space = (await service.segment(encoded(tissue, exif=exif))).json()["coordinate_space"]
    assert (space["width"], space["height"]) == (255, 300)


async def test_coordinates_are_the_callers_pixels_whatever_the_models_scale(service, tissue, encoded):
    double = encoded(np.kron(tissue, np.ones((2, 2, 1), np.uint8)))
    fine = (await service.segment(double, params={"mpp": 0.25})).json()
    plain = (await service.segment(encoded(tissue), params={"mpp": 0.5})).json()
    assert fine["summary"]["density_per_mm2"] == plain["summary"]["density_per_mm2"]
    first, same = (c["features"][0]["geometry"]["coordinates"][0] for c in (plain, fine))
    assert np.max(same) == 2 * np.max(first)


async def test_an_image_without_tissue_says_why_it_has_no_nuclei(service, encoded):
    found = (await service.segment(encoded(BLANK))).json()
    assert (found["summary"]["total"], found["features"]) == (0, [])
    assert "no_tissue" in found["qc"]["codes"]


@pytest.mark.parametrize(
    ("parameters", "source", "codes"),
    [({"mpp": 0.5}, "request", []), ({}, "model-default", ["mpp_assumed"])],
    ids=["said", "unsaid"],
)
async def test_the_answer_says_who_said_the_scale(service, png, parameters, source, codes):
    found = (await service.segment(png, params=parameters)).json()
    assert found["coordinate_space"]["mpp_source"] == source
    assert found["qc"]["codes"] == codes


async def test_the_request_wins_over_the_file_and_the_conflict_is_told(service, tissue):
    data = aperio(tissue, 0.25)
    of_file = (await service.segment(data, "image/tiff")).json()
    of_request = (await service.segment(data, "image/tiff", params={"mpp": 0.5})).json()
    assert of_file["coordinate_space"] | {"mpp_x": 0.25, "mpp_source": "file"} == of_file["coordinate_space"]
    assert of_request["coordinate_space"] | {"mpp_x": 0.5, "mpp_source": "request"} == of_request["coordinate_space"]
    assert ("mpp_conflict" in of_file["qc"]["codes"], "mpp_conflict" in of_request["qc"]["codes"]) == (False, True)


def aperio(image: np.ndarray, mpp: float) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, image, photometric="rgb", description=f"Aperio Image|MPP = {mpp}|", metadata=None)
    return file.getvalue()


async def test_the_accurate_profile_looks_three_times(service, png, ink):
    await service.segment(png, params={"profile": "fast"})
    before = len(ink.calls)
    answer = await service.segment(png, params={"profile": "accurate"})
    assert answer.json()["provenance"]["profile"] == "accurate"
    assert len(ink.calls) - before == 3


async def test_a_model_can_be_named_with_its_version(service, png):
    for name in ("ink", "ink@1"):
        assert (await service.segment(png, params={"model": name})).json()["provenance"]["model"]["version"] == "1"


async def test_the_same_image_gives_the_same_identifiers(service, png):
    first, second = [(await service.segment(png)).json()["features"] for _ in range(2)]
    assert first == second


async def test_the_answer_says_where_the_time_went(service, png):
    stages = (await service.segment(png)).headers["server-timing"]
    names = [entry.partition(";")[0] for entry in stages.split(", ")]
    assert names == ["read", "decode", "queue", "resample", "infer", "aggregate", "slot_wait", "postprocess", "encode"]


async def test_one_pixel_is_an_image(service, encoded):
    assert (await service.segment(encoded(np.zeros((1, 1, 3), np.uint8)))).status_code == 200


async def test_the_documented_members_are_those_of_a_real_answer(service, png):
    found = (await service.segment(png, params={"mpp": 0.5})).json()
    schemas.Collection.model_validate(found)
    assert set(schemas.COLLECTION_EXAMPLE) == set(found)
    assert set(schemas.COLLECTION_EXAMPLE["summary"]) == set(found["summary"])
    assert set(schemas.COLLECTION_EXAMPLE["features"][0]) == set(found["features"][0])


async def test_every_form_that_is_written_is_documented(service):
    paths = (await service.http.get("/openapi.json")).json()["paths"]
    assert set(paths["/v1/segment"]["post"]["responses"]["200"]["content"]) == set(WRITERS)
