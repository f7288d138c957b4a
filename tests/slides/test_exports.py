"""Every export holds what the store holds, each nucleus once, and is well formed with and without nuclei."""

from __future__ import annotations

import csv
import io
import json

import cv2
import numpy as np
import pytest
import shapely

from app.formats import table
from app.formats.raster import fill
from app.nuclei import instances
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Mpp
from app.slides.exports import WRITERS, Export
from app.slides.reading import walk
from app.slides.records import NewSlide
from tests.drawn import label_ink
from tests.slides.kept import SLIDE, WHOLE, cut_up, tile_at


@pytest.fixture
def store(sqlite_library):
    return sqlite_library.store


@pytest.fixture
def slide(store):
    kept = store.add_slide(SLIDE)
    for tile in cut_up(200, margin=24):
        store.put_tile(kept.id, tile)
    return store.slide(kept.id)


def exported(store, slide, form: str) -> bytes:
    return b"".join(WRITERS[form](Export(store.database, slide, "discs are no tissue")))


def nuclei_of(store, slide):
    return [part.nuclei for part in walk(store.database, slide.id)]


def test_the_geojson_holds_the_rings_of_the_store(store, slide):
    document = json.loads(exported(store, slide, "geojson"))
    rings = [np.array(feature["geometry"]["coordinates"][0]) for feature in document["features"]]
    expected = [ring for nuclei in nuclei_of(store, slide) for ring in nuclei.rings]
    assert len(rings) == len(expected) == document["summary"]["total"]
    for ring, kept in zip(rings, expected, strict=True):
        np.testing.assert_array_equal(ring, kept)
    assert len({feature["id"] for feature in document["features"]}) == len(rings)


def test_the_table_holds_the_figures_of_the_store(store, slide):
    rows = list(csv.DictReader(io.StringIO(exported(store, slide, "csv").decode())))
    places = np.array([[float(row[name]) for name in ("x", "y", "area_px")] for row in rows])
    expected = np.concatenate([np.column_stack([each.centroid, each.area]) for each in nuclei_of(store, slide)])
    np.testing.assert_allclose(places, expected, atol=0.005)
    assert {row["class"] for row in rows} <= set(NAMES)
    assert {row["haematoxylin_mean"] for row in rows} == {""}


@pytest.mark.parametrize("step", [1.0, 0.5, 0.94, 2.3])
def test_perimeters_are_those_of_the_map_on_which_the_nuclei_were_traced(store, step):
    image = WHOLE[:200, :200]
    grid, _, _ = instances.tidy(label_ink(image))
    probs = np.random.default_rng(0).dirichlet(np.ones(7), grid.shape).astype(np.float32)
    nuclei = instances.describe(grid, probs, (step, step))
    kept = store.add_slide(NewSlide(1000, 1000, Mpp(0.5, 0.5)))
    place = {"x": 31, "y": 7, "width": round(200 * step), "height": round(200 * step)}
    sent = tile_at(31, 7, 200, 200)
    box = type(sent.place).inside(**place, margin=0, slide=(1000, 1000))
    store.put_tile(kept.id, tile_at(31, 7, 200, 200, place=box, nuclei=nuclei, step=(step, step)))
    rows = csv.DictReader(io.StringIO(exported(store, store.slide(kept.id), "csv").decode()))
    found = [float(row["perimeter_um"]) for row in rows]
    np.testing.assert_allclose(found, table.perimeter(grid, len(nuclei)) * step * 0.5, atol=0.006)


def test_contours_filled_by_opencv_are_the_nuclei_again(store, slide):
    document = json.loads(exported(store, slide, "hovernet"))
    filled = np.zeros(WHOLE.shape[:2], np.int32)
    for number, entry in document["nuc"].items():
        cv2.drawContours(filled, [np.array(entry["contour"])], 0, int(number), -1)
    assert list(document["nuc"]) == [str(i) for i in range(1, len(document["nuc"]) + 1)]
    assert document["mag"] == 20
    np.testing.assert_array_equal(filled > 0, instances.tidy(label_ink(WHOLE))[0] > 0)


def test_a_map_filled_from_rings_is_the_map_they_were_traced_on():
    grid, _, _ = instances.tidy(label_ink(WHOLE))
    rings = instances.describe(grid, np.full((*grid.shape, 7), 1 / 7, np.float32)).rings
    np.testing.assert_array_equal(fill(rings.points, rings.offsets, 0, 0, *grid.shape[::-1]), grid)
    part = fill(rings.points, rings.offsets, 100, 57, 130, 201)
    np.testing.assert_array_equal(part, grid[57:258, 100:230])


def test_parquet_reads_back_as_the_store(store, slide):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra tables is not installed")
    read = parquet.read_table(io.BytesIO(exported(store, slide, "parquet")))
    shapes = shapely.from_wkb(read["geometry"].to_pylist())
    kept = nuclei_of(store, slide)
    np.testing.assert_array_equal(np.column_stack([read["x"], read["y"]]), np.concatenate([k.centroid for k in kept]))
    np.testing.assert_allclose(shapely.area(shapes), np.concatenate([each.area for each in kept]))
    assert shapely.is_valid(shapes).all()
    assert tuple(read.column_names) == (*table.COLUMNS, "geometry")
    geo = json.loads(read.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"] == {
        **{"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None},
        "edges": "planar",
    }


def test_parquet_says_what_its_rows_add_up_to(store, slide):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra tables is not installed")
    metadata = parquet.read_metadata(io.BytesIO(exported(store, slide, "parquet")))
    assert json.loads(metadata.metadata[b"karyon"])["summary"]["total"] == metadata.num_rows > 0


def test_all_forms_name_the_same_nuclei(store, slide):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra tables is not installed")
    features = json.loads(exported(store, slide, "geojson"))["features"]
    rows = list(csv.DictReader(io.StringIO(exported(store, slide, "csv").decode())))
    read = parquet.read_table(io.BytesIO(exported(store, slide, "parquet")))
    ids = [feature["id"] for feature in features]
    assert ids == [row["id"] for row in rows] == read["id"].to_pylist()
    assert [feature["properties"]["classification"]["name"] for feature in features] == read["class"].to_pylist()


def test_a_slide_without_nuclei_gives_files_without_nuclei(store):
    empty = store.add_slide(SLIDE)
    assert json.loads(exported(store, empty, "geojson"))["features"] == []
    assert json.loads(exported(store, empty, "hovernet"))["nuc"] == {}
    assert exported(store, empty, "csv") == table.HEADER
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra tables is not installed")
    assert parquet.read_table(io.BytesIO(exported(store, empty, "parquet"))).num_rows == 0


def test_an_export_counts_what_it_wrote_while_tiles_come(store):
    kept = store.add_slide(SLIDE)
    first, *_, last = cut_up(200)
    store.put_tile(kept.id, first)
    pieces = WRITERS["geojson"](Export(store.database, store.slide(kept.id), None))
    begun = [next(pieces), next(pieces)]
    store.put_tile(kept.id, last)
    document = json.loads(b"".join([*begun, *pieces]))
    assert document["summary"]["total"] == len(document["features"]) == sum(document["summary"]["counts"].values())
    assert "changed" in document["summary"]["tumour_burden_reason"]


def test_no_more_than_a_few_tiles_are_held_at_once(store, slide, monkeypatch):
    monkeypatch.setattr("app.slides.exports.ROW_GROUP", 1)
    expected = sum(len(each) for each in nuclei_of(store, slide))
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra tables is not installed")
    pieces = list(WRITERS["parquet"](Export(store.database, slide, None)))
    assert len(pieces) > 5
    assert max(map(len, pieces)) < sum(map(len, pieces)) / 2
    assert parquet.read_table(io.BytesIO(b"".join(pieces))).num_rows == expected
