"""Where errors lie, how honest confidence is, and what spoils a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.nuclei import Segmenter, load_artifact
from app.nuclei.instances import describe
from app.nuclei.types import Int32, Mpp, QualityReport, Segmentation
from tests.drawn import InkEngine, draw_tissue, label_ink
from training import failures, reliability, sensitivity
from training.data.sample import Sample
from training.matching import met


@pytest.fixture
def sample() -> Sample:
    """Drawn tissue with its truth."""
    image = draw_tissue(255, 300)
    labels = label_ink(image)
    types = np.zeros(labels.max() + 1, np.uint8)
    types[labels] = np.where(labels > 0, 1 + image[..., 0] % 6, 0)
    return Sample("drawn", "drawn", "drawn", image, labels, types, 0.5)


def _answer(sample: Sample, labels: Int32) -> Segmentation:
    """Found as in `labels`, every class as in truth."""
    nuclei = describe(labels, np.eye(7, dtype=np.float32)[sample.type_map])
    height, width = labels.shape
    return Segmentation(labels, nuclei, height, width, Mpp(0.5, 0.5, "given"), 0.5, "fast", QualityReport())


def test_a_shifted_nucleus_meets_its_truth_only_above_half_overlap() -> None:
    truth = np.zeros((30, 60), np.int32)
    truth[5:15, 5:15], truth[5:15, 30:40] = 4, 9
    labels = np.zeros_like(truth)
    labels[5:15, 6:16], labels[5:15, 35:45] = 1, 2
    assert met(labels, truth).tolist() == [4, 0]


def test_a_perfect_answer_finds_and_names_every_nucleus(sample: Sample) -> None:
    fates = failures.fates(sample, _answer(sample, sample.instance_map))
    assert fates.found.tolist() == fates.named.tolist() == [1.0] * len(sample.centres)
    assert {row["found"] for row in failures.table(fates, "area_um2")} == {1.0}


def test_every_nucleus_falls_into_one_quarter(sample: Sample) -> None:
    fates = failures.fates(sample, _answer(sample, sample.instance_map))
    for column in ("area_um2", "neighbours"):
        assert sum(row["nuclei"] for row in failures.table(fates, column)) == len(sample.centres)


def test_a_lost_nucleus_is_counted_where_it_belongs(sample: Sample) -> None:
    smallest = np.bincount(sample.instance_map.ravel())[1:].argmin() + 1
    labels = sample.instance_map
    left = np.where(labels < smallest, labels, np.where(labels == smallest, 0, labels - 1)).astype(np.int32)
    rows = failures.table(failures.fates(sample, _answer(sample, left)), "area_um2")
    assert rows[0]["found"] < 1 == rows[-1]["found"]


def test_confidence_equal_to_accuracy_is_no_error() -> None:
    sure, right = np.repeat([0.5, 1.0], 10), np.concatenate([np.tile([1.0, 0.0], 5), np.ones(10)])
    rows = reliability.bins(sure, right)
    assert [row["nuclei"] for row in rows] == [10, 10]
    assert reliability.error(rows) == pytest.approx(0)
    assert reliability.error(reliability.bins(sure, 1 - right)) == pytest.approx(0.5)


def test_answers_tell_the_nuclei_that_meet_none_and_the_wrongly_named(sample: Sample) -> None:
    given = reliability.answers([sample, sample], [_answer(sample, sample.instance_map)] * 2)
    assert given.met.all()
    assert given.right.all()
    assert given.image.tolist() == np.repeat([0, 1], len(sample.centres)).tolist()
    elsewhere = _answer(sample, np.roll(sample.instance_map, 150, 1))
    assert not reliability.answers([sample], [elsewhere]).right.any()
    renamed = replace(sample, types=np.where(sample.types > 0, sample.types % 6 + 1, 0).astype(np.uint8))
    wrong = reliability.answers([renamed], [_answer(sample, sample.instance_map)])
    assert wrong.met.all()
    assert not wrong.right.any()


def test_each_class_has_a_calibration_error_of_its_own() -> None:
    given = reliability.Answers(
        np.repeat([0, 1], 10),
        np.repeat([1, 3], 10),
        np.full(20, 0.8),
        np.ones(20, bool),
        np.array([True] * 10 + [True, False] * 5),
    )
    epithelial, plasma = reliability.by_class(given)
    assert (epithelial["class"], plasma["class"], plasma["nuclei"]) == ("epithelial", "plasma", 10)
    assert (epithelial["error"], plasma["error"], given.error()) == pytest.approx((0.2, 0.3, 0.05))
    low, high = reliability.interval(given)
    assert (low, high) == pytest.approx((0.05, 0.3))  # of one image twice, or of both


def test_nuclei_that_meet_none_are_not_judged_by_their_class() -> None:
    given = reliability.Answers(*(np.zeros(4, int),) * 2, np.ones(4), *(np.arange(4) < 2,) * 2)
    assert given.error() == 0
    assert reliability.by_class(given)[0]["nuclei"] == 2


def test_the_reliability_plot_is_a_picture(sample: Sample, tmp_path: Path) -> None:
    given = reliability.answers([sample], [_answer(sample, sample.instance_map)])
    reliability.plot(reliability.bins(given.sure, given.right.astype(float)), "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_untouched_images_come_first_and_lose_nothing(sample: Sample, ink: InkEngine) -> None:
    rows = sensitivity.study(Segmenter(load_artifact("karyon-lite"), ink), [sample], "fast")
    assert [row["condition"] for row in rows] == list(sensitivity.CONDITIONS)
    assert rows[0]["bpq_change"] == {"value": 0, "low": 0, "high": 0}
    assert all(0 <= row["bpq"] <= 1 for row in rows)
