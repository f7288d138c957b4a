"""Each row of the table of what QuPath's reader takes, on real output."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import shapely
from geojson_pydantic import Feature, FeatureCollection, Polygon
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from app.formats import featuretext, geojson
from app.formats.document import NOTICE, members
from app.formats.featuretext import Columns, Fixed, Pieces
from app.nuclei.errors import InferenceFailed
from app.nuclei.taxonomy import CLASSES, NAMES
from app.nuclei.types import Mpp, Nuclei, QualityReport, Rings, Segmentation

SCALES = (0.31, 0.93, 1.0, 1.7, 2.0)


@pytest.fixture(scope="module")
def features(many, context):
    return json.loads(geojson.encode(many, context))["features"]


@pytest.fixture(scope="module", params=SCALES)
def scaled(request, draw, scatter):
    """The same nuclei in images of other scales than the model's; a ring then has decimals."""
    labels = scatter(180, 260, seed=3)
    return draw(labels, size=tuple(round(side * request.param) for side in labels.shape), mpp=0.5 / request.param)


def nulls(value: object) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(nulls(child) for child in children)


def test_each_feature_is_a_detection_said_inside_its_properties(features):
    assert {feature["properties"]["objectType"] for feature in features} == {"detection"}


def test_properties_hold_what_the_reader_takes_over_and_nothing_else(features):
    assert {tuple(feature["properties"]) for feature in features} == {("objectType", "classification", "measurements")}


def test_a_feature_has_no_further_members(features):
    assert {tuple(feature) for feature in features} == {("type", "id", "geometry", "properties")}


def test_each_id_is_a_uuid_of_its_own(features):
    parsed = {uuid.UUID(feature["id"]) for feature in features}
    assert len(parsed) == len(features)
    assert {(u.version, u.variant) for u in parsed} == {(5, uuid.RFC_4122)}


def test_ids_are_those_of_the_document(many, context, features):
    ids = context.nucleus_ids(many).tobytes().decode()
    assert "".join(feature["id"] for feature in features) == ids


def test_each_classification_has_the_name_and_the_colour_of_its_class(many, features):
    table = {c.id: {"name": c.name, "color": list(c.colour)} for c in CLASSES}
    expected = [table[kind] for kind in many.nuclei.type.tolist()]
    assert [feature["properties"]["classification"] for feature in features] == expected


def test_no_class_name_has_a_colon_or_a_line_break():
    assert not any(set(":\r\n") & set(name) for name in NAMES)


def test_measurements_are_finite_numbers_and_never_booleans(features):
    values = [value for feature in features for value in feature["properties"]["measurements"].values()]
    assert {type(value) for value in values} <= {int, float}
    assert all(math.isfinite(value) for value in values)


def test_measurements_are_named_and_ordered_the_same_in_every_feature(features):
    names = (*(f"Probability: {name}" for name in NAMES), "Area um^2", "Area px^2")
    names = (*names, "Mean diameter um", "Mean diameter px", "Uncertain")
    assert {tuple(feature["properties"]["measurements"]) for feature in features} == {names}


def test_measurements_are_the_columns_rounded(many, features):
    written = [list(feature["properties"]["measurements"].values()) for feature in features]
    places = list(geojson.MEASUREMENTS.values())
    rounded = [np.round(column, k) for column, k in zip(geojson.measured(many.nuclei, many.mpp).T, places, strict=True)]
    np.testing.assert_allclose(written, np.stack(rounded, axis=1), atol=1e-9)


def test_a_nucleus_whose_class_is_less_likely_than_not_is_uncertain(many, features):
    uncertain = [feature["properties"]["measurements"]["Uncertain"] for feature in features]
    assert uncertain == [int(p < 0.5) for p in many.nuclei.type_prob.tolist()]
    assert set(uncertain) == {0, 1}


def test_no_null_occurs_in_a_feature(features):
    assert not nulls(features)


def test_members_come_in_their_order_and_the_notice_first(many, context):
    document = json.loads(geojson.encode(many, context))
    assert list(document) == ["type", "notice", "coordinate_space", "summary", "qc", "provenance", "features"]
    assert document["notice"] == NOTICE
    assert {name: document[name] for name in list(document)[1:-1]} == members(many, context)


def test_there_is_no_crs_member(many, context):
    assert b'"crs"' not in geojson.encode(many, context)


def test_there_are_as_many_features_as_the_summary_says(scaled, context):
    document = json.loads(geojson.encode(scaled, context))
    assert len(document["features"]) == document["summary"]["total"] == len(scaled.nuclei)


def test_every_ring_is_closed_counter_clockwise_by_number_and_valid(scaled, context):
    for feature in json.loads(geojson.encode(scaled, context))["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        line = shapely.LinearRing(ring)
        assert ring[0] == ring[-1]
        assert len(ring) >= 4
        assert line.is_ccw
        assert shapely.Polygon(ring).is_valid


def test_every_ring_keeps_the_area_of_its_pixels(scaled, context):
    listed = json.loads(geojson.encode(scaled, context))["features"]
    areas = [shapely.Polygon(feature["geometry"]["coordinates"][0]).area for feature in listed]
    np.testing.assert_allclose(areas, scaled.nuclei.area, rtol=0.01)


def test_rings_stay_inside_the_image_of_the_caller(scaled, context):
    listed = json.loads(geojson.encode(scaled, context))["features"]
    points = np.concatenate([feature["geometry"]["coordinates"][0] for feature in listed])
    assert (points >= 0).all()
    assert (points <= [scaled.width, scaled.height]).all()


def test_no_coordinate_has_more_than_two_decimals(scaled, context):
    listed = json.loads(geojson.encode(scaled, context), parse_float=str)["features"]
    texts = [str(value) for feature in listed for point in feature["geometry"]["coordinates"][0] for value in point]
    assert max(len(text.partition(".")[2]) for text in texts) <= 2


def test_another_reader_of_geojson_takes_it(many, context):
    parsed = FeatureCollection[Feature[Polygon, dict]].model_validate_json(geojson.encode(many, context))
    assert parsed.length == len(many.nuclei)


def test_the_same_tile_gives_the_same_bytes_but_for_request_and_time(many, context):
    later = replace(context, request_id="another", created=context.created + timedelta(days=1))
    first, second = geojson.encode(many, context), geojson.encode(many, later)
    assert first != second
    assert first.replace(b"7d0e2a54", b"another").replace(b"2026-08-01T", b"2026-08-02T") == second


def test_the_summary_is_the_same_object_without_type_and_features(many, context):
    document = json.loads(geojson.encode(many, context))
    del document["type"], document["features"]
    assert json.loads(geojson.encode_summary(many, context)) == document


def test_a_tile_without_nuclei_has_an_empty_list_of_features(nothing, context):
    assert json.loads(geojson.encode(nothing, context))["features"] == []


def test_a_nucleus_whose_class_stayed_open_has_no_classification(few, context):
    open_class = replace(few, nuclei=replace(few.nuclei, type=np.array([0, 2, 3, 2, 6], np.uint8)))
    first, second, *_ = json.loads(geojson.encode(open_class, context))["features"]
    assert list(first["properties"]) == ["objectType", "measurements"]
    assert second["properties"]["classification"]["name"] == "epithelial"


def test_probabilities_that_are_no_numbers_are_refused(few, context):
    broken = replace(few, nuclei=replace(few.nuclei, class_probs=np.full((5, 6), np.nan, np.float32)))
    with pytest.raises(InferenceFailed):
        geojson.encode(broken, context)


def test_the_example_of_the_interchange_page_is_written_as_it_stands(context):
    ring = np.array([[20, 30], [28, 30], [28, 36], [26, 36], [26, 38], [20, 38], [20, 30]], np.float64)
    probabilities = np.array([[0.01, 0.02, 0.93, 0.03, 0, 0.01]], np.float32)
    nuclei = Nuclei(
        id=np.array([1], np.int32),
        type=np.array([3], np.uint8),
        type_prob=probabilities[:, 2],
        class_probs=probabilities,
        centroid=np.array([[23.8, 33.8]]),
        bbox=np.array([[20.0, 30, 28, 38]]),
        area=np.array([60.0]),
        covariance=np.array([[5.0, 5, 0]]),
        rings=Rings(ring, np.array([0, 7], np.int64)),
    )
    grid = np.zeros((512, 512), np.int32)
    one = Segmentation(grid, nuclei, 512, 512, Mpp(0.5, 0.5), 0.5, "fast", QualityReport())
    (feature,) = json.loads(geojson.encode(one, context))["features"]
    assert feature["geometry"] == {"type": "Polygon", "coordinates": [ring.tolist()]}
    assert feature["properties"]["classification"] == {"name": "lymphocyte", "color": [48, 45, 240]}
    measurements = feature["properties"]["measurements"]
    assert [measurements[f"Probability: {name}"] for name in NAMES] == [0.01, 0.02, 0.93, 0.03, 0, 0.01]
    assert (measurements["Area um^2"], measurements["Uncertain"]) == (15, 0)


@settings(deadline=None)  # the first call may compile
@given(
    npst.arrays(np.int64, (3, 4), elements=st.integers(-(10**12), 10**12)),
    npst.arrays(np.int64, 4, elements=st.integers(0, 4)),
    npst.arrays(np.int64, (9, 2), elements=st.integers(-(10**7), 10**7)),
)
def test_both_writers_give_the_same_bytes_and_lose_no_digit(values, places, points):
    columns = Columns(
        ids=np.full((3, 36), ord("0"), np.uint8),
        rings=Fixed(points, np.array([2, 2])),
        offsets=np.array([0, 4, 4, 9]),
        kinds=np.array([0, 2, 1], np.uint8),
        numbers=Fixed(values, places),
        kind_pieces=Pieces.of("", '"a",', '"bé",'),
        frame=Pieces.of('["', '",[', "],", *["", ",", ",", ","], "]"),
    )
    written = featuretext.features(columns)
    assert written == featuretext.plainly(columns)
    read = [row[-4:] for row in json.loads(b"[" + written + b"]")]
    assert read == [[v / 10**k for v, k in zip(row, places.tolist(), strict=True)] for row in values.tolist()]


def test_a_feature_of_a_slide_is_that_of_a_tile_and_says_whether_an_edge_cuts_it(many, context, features):
    cut = np.arange(len(many.nuclei)) % 2 == 1
    text = geojson.slide_features(many.nuclei, many.mpp, context.nucleus_ids(many), cut)
    found = json.loads(b"[%b]" % text)
    assert [feature["properties"]["measurements"].pop(geojson.CUT) for feature in found] == cut.tolist()
    assert found == features
