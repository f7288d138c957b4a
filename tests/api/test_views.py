"""A viewer gets the slide, its overlay, its nuclei and its summary, and is told clearly what it cannot have."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from app.nuclei.types import Mpp
from app.slides.records import NewSlide
from tests.slides.kept import SLIDE, WHOLE, cut_up, found

pytestmark = pytest.mark.anyio


def slug(response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


def slides_of(service):
    return service.app.state.services.slides


@pytest.fixture
def filled(service):
    """Address of a slide with the nuclei of a drawn tissue."""
    store = slides_of(service).library.store
    kept = store.add_slide(SLIDE)
    for tile in cut_up(300, margin=32):
        store.put_tile(kept.id, tile)
    return f"/v1/slides/{kept.id}"


@pytest.fixture
async def pictured(service, encoded):
    """Address of a slide that came as a file."""
    headers = {"Content-Type": "application/octet-stream"}
    made = await service.http.post("/v1/slides?filename=a.png&mpp=0.5", content=encoded(WHOLE), headers=headers)
    return made.headers["location"]


async def test_a_viewport_holds_the_nuclei_that_meet_it(service, filled):
    answer = await service.http.get(f"{filled}/nuclei?bbox=100,50,300,250")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/geo+json")
    x0, y0, x1, y1 = found(WHOLE).bbox.T
    assert len(answer.json()["features"]) == ((x0 < 300) & (x1 > 100) & (y0 < 250) & (y1 > 50)).sum()
    assert answer.json()["viewport"]["total"] == len(answer.json()["features"])


async def test_viewports_side_by_side_give_each_nucleus_once(service, filled):
    ids = set()
    for x in range(0, 600, 200):
        for y in range(0, 480, 160):
            answer = await service.http.get(f"{filled}/nuclei?bbox={x},{y},{x + 200},{y + 160}")
            ids |= {feature["id"] for feature in answer.json()["features"]}
    everything = (await service.http.get(f"{filled}/nuclei?bbox=0,0,600,480")).json()["features"]
    assert ids == {feature["id"] for feature in everything}
    assert len(ids) == len(everything) == (await service.http.get(f"{filled}/summary")).json()["total"]


async def test_a_viewport_shows_only_the_classes_asked_for(service, filled):
    answer = await service.http.get(f"{filled}/nuclei?bbox=0,0,600,480&classes=plasma,eosinophil")
    names = {feature["properties"]["classification"]["name"] for feature in answer.json()["features"]}
    counts = (await service.http.get(f"{filled}/summary")).json()["counts"]
    assert names == {"plasma", "eosinophil"}
    assert len(answer.json()["features"]) == counts["plasma"] + counts["eosinophil"]


async def test_a_viewer_that_hides_every_class_sees_none(service, filled):
    assert (await service.http.get(f"{filled}/nuclei?bbox=0,0,600,480&classes=")).json()["features"] == []
    assert (await service.http.get(f"{filled}/overlay.dzi?classes=")).status_code == 200
    tile = await service.http.get(f"{filled}/overlay_files/10/0_0.png?classes=")
    assert not np.asarray(Image.open(io.BytesIO(tile.content))).any()


async def test_a_viewport_with_too_many_nuclei_says_how_many(serving):
    async with serving(viewport_nuclei=20) as service:
        store = slides_of(service).library.store
        kept = store.add_slide(SLIDE)
        store.put_tile(kept.id, cut_up(300)[0])
        refused = await service.http.get(f"/v1/slides/{kept.id}/nuclei?bbox=0,0,600,480")
        assert slug(refused) == (422, "viewport-too-dense")
        assert refused.json()["limit"] == 20 < refused.json()["count"]
        assert (await service.http.get(f"/v1/slides/{kept.id}/nuclei?bbox=0,0,60,60")).status_code == 200


NONSENSE = [
    "nuclei",
    "nuclei?bbox=1,2,3",
    "nuclei?bbox=1,2,3,x",
    "nuclei?bbox=1,2,3,nan",
    "nuclei?bbox=1,2,inf,4",
    "nuclei?bbox=3,2,1,4",
    "nuclei?bbox=1,2,3,4&bbox=1,2,3,4",
    "nuclei?bbox=1,2,3,4&classes=mitosis",
    "nuclei?bbox=1,2,3,4&colour=red",
    "summary?region=1,2,3",
    "summary?region=0,0,0,10",
    "summary?region=0,0,10,10,0,10,10,0",
    "summary?region=0,0,5,5,9,9",
    "summary?region=" + "1," * 9000 + "1",
    "overlay.dzi?classes=mitosis",
    "image.dzi?classes=plasma",
]


async def test_parameters_that_make_no_sense_are_refused(service, filled):
    for query in NONSENSE:
        assert slug(await service.http.get(f"{filled}/{query}")) == (422, "invalid-parameter"), query


NOWHERE = [
    "overlay_files/11/0_0.png",
    "overlay_files/10/3_0.png",
    "overlay_files/10/0_2.png",
    "overlay_files/-1/0_0.png",
    "overlay_files/x/0_0.png",
    "overlay_files/10/0.png",
    "overlay_files/10/0_0_0.png",
    "overlay_files/10/0_0.jpg",
    f"overlay_files/10/{'9' * 5000}_0.png",
    "image.dzi",
    "image_files/10/0_0.jpg",
]


async def test_what_is_not_there_is_not_found(service, filled):
    for address in NOWHERE:
        assert slug(await service.http.get(f"{filled}/{address}")) == (404, "not-found"), address


async def test_nobody_sees_what_does_not_exist(service):
    for rest in ("nuclei?bbox=0,0,1,1", "summary", "overlay.dzi", "image.dzi", "overlay_files/0/0_0.png"):
        assert slug(await service.http.get(f"/v1/slides/{'0' * 32}/{rest}")) == (404, "not-found")


async def test_picture_and_overlay_have_the_same_levels(service, pictured):
    texts = [(await service.http.get(f"{pictured}/{name}.dzi")).text for name in ("image", "overlay")]
    images = [ElementTree.fromstring(text) for text in texts]
    assert [image.attrib.pop("Format") for image in images] == ["jpg", "png"]
    assert images[0].attrib == images[1].attrib
    assert images[0][0].attrib == images[1][0].attrib == {"Width": "600", "Height": "480"}


async def test_picture_tiles_are_the_slide(service, pictured):
    tile = await service.http.get(f"{pictured}/image_files/10/1_1.jpg")
    assert tile.headers["content-type"] == "image/jpeg"
    seen = np.asarray(Image.open(io.BytesIO(tile.content)), np.int64)
    assert seen.shape == (224, 256, 3)
    assert np.abs(seen - WHOLE[256:480, 256:512]).mean() < 8


async def test_overlay_tiles_are_pictures_of_their_size(service, filled):
    for level, size in ((10, (256, 256)), (6, (38, 30)), (0, (1, 1))):
        tile = await service.http.get(f"{filled}/overlay_files/{level}/0_0.png")
        image = Image.open(io.BytesIO(tile.content))
        assert (image.size, image.mode, tile.headers["content-type"]) == (size, "RGBA", "image/png")


PARTS = ("overlay.dzi", "overlay_files/10/0_0.png", "overlay_files/5/0_0.png", "nuclei?bbox=0,0,99,99", "summary")


async def test_who_has_an_answer_is_told_that_it_still_holds(service, filled):
    for part in PARTS:
        first = await service.http.get(f"{filled}/{part}")
        again = await service.http.get(f"{filled}/{part}", headers={"If-None-Match": f'"x", W/{first.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        head = await service.http.head(f"{filled}/{part}")
        assert (head.status_code, head.headers["etag"]) == (200, first.headers["etag"])


async def test_a_tile_that_comes_changes_what_holds(service, filled):
    first = {part: (await service.http.get(f"{filled}/{part}")).headers["etag"] for part in PARTS[1:]}
    slides_of(service).library.store.put_tile(filled.rpartition("/")[2], cut_up(200)[-1])
    for part, tag in first.items():
        again = await service.http.get(f"{filled}/{part}", headers={"If-None-Match": tag})
        assert (again.status_code, again.headers["etag"] == tag) == (200, False), part


async def test_the_summary_adds_up(service, filled):
    body = (await service.http.get(f"{filled}/summary")).json()
    assert body["total"] == sum(body["counts"].values()) + body["unclassified"] == len(found(WHOLE))
    assert (body["area_px"], body["windows"], body["qc"]["verdict"]) == (600 * 480, 6, "warn")
    assert body["density_per_mm2"]["plasma"] == pytest.approx(body["counts"]["plasma"] / body["area_mm2"], abs=0.01)
    for name, share in body["composition"].items():
        assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1, name
        assert share["value"] == pytest.approx(body["counts"][name] / body["total"], abs=1e-4)
    assert body["tumour_burden"] is None
    assert "no longer in the store" in body["tumour_burden_reason"]


async def test_regions_that_make_up_the_slide_hold_each_nucleus_once(service, filled):
    whole = (await service.http.get(f"{filled}/summary")).json()
    boxes = [f"{x},{y},{x + 170},{y + 240}" for x in range(0, 600, 170) for y in (0, 240)]
    parts = [(await service.http.get(f"{filled}/summary?region={box}")).json() for box in boxes]
    assert sum(part["total"] for part in parts) == whole["total"]
    for name in whole["counts"]:
        assert sum(part["counts"][name] for part in parts) == whole["counts"][name]
    assert sum(part["area_px"] for part in parts) == pytest.approx(whole["area_px"])
    halves = ["0,0,600,0,0,480", "600,0,600,480,0,480"]
    triangles = [(await service.http.get(f"{filled}/summary?region={half}")).json() for half in halves]
    assert sum(part["total"] for part in triangles) == whole["total"]
    assert sum(part["area_px"] for part in triangles) == pytest.approx(whole["area_px"])


async def test_a_slide_without_results_says_so(service):
    store = slides_of(service).library.store
    empty = store.add_slide(NewSlide(1000, 800, None))
    body = (await service.http.get(f"/v1/slides/{empty.id}/summary")).json()
    assert (body["total"], body["area_px"], body["density_per_mm2"], body["windows"]) == (0, 0, None, 0)
    assert (body["tumour_burden"], body["tumour_burden_reason"]) == (None, "nothing of this was analysed yet")
    nuclei = (await service.http.get(f"/v1/slides/{empty.id}/nuclei?bbox=0,0,9,9")).json()
    assert (nuclei["features"], nuclei["coordinate_space"]["mpp_x"]) == ([], None)


async def test_the_burden_is_given_where_the_models_card_allows_it(service, filled, store):
    (store / "ink" / "1" / "manifest.json").write_text(
        (store / "ink" / "1" / "manifest.json").read_text().replace('"discs are no tissue"', "null")
    )
    ours = slides_of(service).library.store
    sha = (await service.http.get("/v1/models")).json()["models"][0]["sha256"]
    kept = ours.add_slide(NewSlide(600, 480, Mpp(0.5, 0.5)))
    for tile in cut_up(300, margin=32):
        model = tile.model._replace(sha256=sha)
        ours.put_tile(
            kept.id, type(tile)(*[model if name == "model" else getattr(tile, name) for name in tile.__slots__])
        )
    body = (await service.http.get(f"/v1/slides/{kept.id}/summary")).json()
    assert body["tumour_burden"] == body["composition"]["epithelial"]
    assert body["tumour_burden_reason"] is None


@pytest.mark.parametrize("form", ["geojson", "hovernet", "csv", "parquet"])
async def test_an_export_is_a_file_with_a_harmless_name(service, filled, form):
    pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    total = (await service.http.get(f"{filled}/summary")).json()["total"]
    file = await service.http.get(f"{filled}/export?format={form}", headers={"Accept-Encoding": "identity"})
    name = {"hovernet": "json"}.get(form, form)
    expected = f'attachment; filename="slide-{filled.rpartition("/")[2]}.{name}"'
    assert (file.status_code, file.headers["content-disposition"]) == (200, expected)
    found = {
        "geojson": lambda: len(file.json()["features"]),
        "hovernet": lambda: len(file.json()["nuc"]),
        "csv": lambda: file.text.count("\n") - 1,
        "parquet": lambda: total if file.content[:4] == file.content[-4:] == b"PAR1" else 0,
    }
    assert found[form]() == total
    again = await service.http.get(
        f"{filled}/export?format={form}", headers={"If-None-Match": file.headers["etag"], "Accept-Encoding": "identity"}
    )
    assert again.status_code == 304


async def test_an_export_is_packed_for_those_who_unpack_it(service, filled):
    plain = await service.http.get(f"{filled}/export", headers={"Accept-Encoding": "gzip;q=0"})
    packed = await service.http.get(f"{filled}/export", headers={"Accept-Encoding": "br, gzip"})
    assert (plain.headers.get("content-encoding"), packed.headers["content-encoding"]) == (None, "gzip")
    assert packed.json() == plain.json()
    assert packed.headers["etag"] != plain.headers["etag"]


async def test_forms_that_cannot_be_written_are_refused(service, filled):
    refused = await service.http.get(f"{filled}/export?format=xlsx")
    assert slug(refused) == (422, "invalid-parameter")
    for form in ("dicom-ann", "dicom-seg", "dicom-sr"):
        assert slug(await service.http.get(f"{filled}/export?format={form}")) == (422, "not-dicom")


async def test_parquet_without_its_extra_names_the_extra(service, filled, monkeypatch):
    monkeypatch.setattr("app.formats.parquet.find_spec", lambda name: None)
    refused = await service.http.get(f"{filled}/export?format=parquet")
    assert slug(refused) == (501, "missing-extra")
    assert "karyon[tables]" in refused.json()["detail"]
