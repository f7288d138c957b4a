from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats import document
from app.formats.document import KARYON_NAMESPACE, config_sha256, nucleus_ids, slide_nucleus_id_text, wilson
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Mpp


@given(st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0, 130))
def test_an_id_is_the_version_5_uuid_of_all_that_decided_the_nucleus(digest, count):
    expected = [str(uuid.uuid5(KARYON_NAMESPACE, f"nucleus|{digest}|model|config|{n}")) for n in range(1, count + 1)]
    assert nucleus_ids(digest, "model", "config", count) == expected


def test_the_configuration_has_one_digest_in_whatever_order_it_is_given():
    one = config_sha256({"a": 1, "b": {"x": 1, "y": 2}}, "fast", Mpp(0.5, 0.5))
    assert config_sha256({"b": {"y": 2, "x": 1}, "a": 1}, "fast", Mpp(0.5, 0.5, "file", True)) == one


def test_each_part_of_the_configuration_changes_its_digest():
    digests = {
        config_sha256({"a": 1}, "fast", Mpp(0.5, 0.5)),
        config_sha256({"a": 2}, "fast", Mpp(0.5, 0.5)),
        config_sha256({"a": 1}, "accurate", Mpp(0.5, 0.5)),
        config_sha256({"a": 1}, "fast", Mpp(0.5, 0.4)),
    }
    assert len(digests) == 4


def test_counts_name_every_class_and_densities_are_per_square_millimetre_of_the_whole_image(few):
    summary = document.summary(few)
    counts = {"neutrophil": 0, "epithelial": 3, "lymphocyte": 1, "plasma": 0, "eosinophil": 0, "connective": 1}
    area_mm2 = 180 * 260 * 0.25 / 1e6
    assert (summary["total"], summary["counts"]) == (5, counts)
    assert summary["density_per_mm2"] == {name: round(count / area_mm2, 2) for name, count in counts.items()}


def test_without_leave_of_the_model_card_there_is_a_reason_in_place_of_a_tumour_burden(few):
    summary = document.summary(few)
    assert summary["tumour_burden"] is None
    assert summary["tumour_burden_reason"] == "the model does not tell tumour from healthy epithelium"


def test_a_tumour_burden_is_the_share_of_epithelial_nuclei_with_its_interval(few):
    summary = document.summary(few, epithelium_is_tumour=True)
    # Wilson interval of 3 in 5, as in R: prop.test(3, 5, correct = FALSE)
    assert summary["tumour_burden"] == {"value": 0.6, "low": 0.2307, "high": 0.8824}
    assert summary["tumour_burden_reason"] is None


def test_no_nuclei_have_zero_counts_and_no_tumour_burden(nothing):
    summary = document.summary(nothing, epithelium_is_tumour=True)
    zeros = dict.fromkeys(NAMES, 0)
    assert summary == {
        "total": 0,
        "counts": zeros,
        "composition_224": None,
        "density_per_mm2": zeros,
        "tumour_burden": None,
        "tumour_burden_reason": "no nuclei were found",
    }


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_an_interval_holds_its_share_and_stays_between_0_and_1(trials, part):
    successes = round(part * trials)
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1


def test_a_share_of_nothing_has_no_interval():
    with pytest.raises(ValueError, match="no trials"):
        wilson(0, 0)


def test_one_pixel_inside_the_central_224_is_enough_to_be_counted(draw):
    labels = np.zeros((256, 256), np.int32)
    labels[10:16, 100:110] = 1  # ends above row 16
    labels[10:17, 130:140] = 2  # one row of pixels inside
    labels[100:110, 239:250] = 3  # one column inside
    labels[100:110, 240:250][5:] = 0
    labels[130:140, 240:250] = 4  # begins behind column 239
    composition = document.summary(draw(labels, kinds=[1, 2, 3, 4]))["composition_224"]
    assert composition == dict.fromkeys(NAMES, 0) | {"epithelial": 1, "lymphocyte": 1}


def test_other_sizes_have_no_composition_of_the_central_224(draw):
    labels = np.zeros((256, 257), np.int32)
    labels[100:110, 100:110] = 1
    assert document.summary(draw(labels))["composition_224"] is None


def test_provenance_says_all_that_is_needed_to_get_the_result_again(few, context):
    assert document.provenance(few, context) == {
        "request_id": "7d0e2a54",
        "created": "2026-08-01T12:30:00.000Z",
        "service": {"version": "0.1.0", "revision": "abc1234"},
        "model": {
            "name": "karyon-lite",
            "version": "1.0.0",
            "sha256": "b" * 64,
            "members": ["tiny"],
            "licence": "CC-BY-NC-SA-4.0",
            "training_data": "drawn ellipses",
        },
        "profile": "fast",
        "thresholds": {"np": 0.5, "marker": 0.6},
        "config_sha256": config_sha256(context.thresholds, "fast", few.mpp),
        "input": {"sha256": "a" * 64, "width": 260, "height": 180, "mpp": 0.5, "mpp_source": "request"},
        "resize_factor": 1.0,
        "runtime": {"device": "cpu", "provider": "CPUExecutionProvider", "precision": "float32"},
        "geometry": {"repaired": 0, "dropped": 0},
    }


def test_the_time_of_analysis_is_written_in_utc(few, context):
    summer = datetime(2026, 8, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    assert document.provenance(few, replace(context, created=summer))["created"] == "2026-08-01T12:30:00.000Z"


def test_a_time_without_a_zone_is_refused(context):
    with pytest.raises(ValueError, match="time zone"):
        replace(context, created=datetime(2026, 8, 1))


def test_the_resize_factor_is_what_was_done_to_the_image(draw, context):
    labels = np.zeros((60, 80), np.int32)
    labels[20:30, 20:30] = 1
    twice_as_fine = draw(labels, size=(120, 160), mpp=0.25)
    assert document.provenance(twice_as_fine, context)["resize_factor"] == 0.5


def test_nuclei_of_equal_tiles_at_two_places_have_ids_of_their_own():
    places, numbers = [(0.0, 0.0), (256.0, 0.0), (0.0, 256.0), (0.5, 0.0)], [1, 2, 5]
    found = [slide_nucleus_id_text("a" * 64, "model", "config", at, numbers) for at in places]
    ids = [row.tobytes().decode() for text in found for row in text]
    assert len(set(ids)) == len(places) * len(numbers)
    name = f"nucleus|{'a' * 64}|model|config|256.000,0.000|5"
    assert ids[5] == str(uuid.uuid5(KARYON_NAMESPACE, name))
