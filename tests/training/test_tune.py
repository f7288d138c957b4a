"""Operating point and temperature, from validation images alone."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from app.nuclei import hover
from app.nuclei.targets import hv_targets
from app.nuclei.types import HoverMaps
from tests.drawn import draw_tissue, label_ink
from training import calibrate
from training.calibrate import ece
from training.data.sample import Sample
from training.network import build
from training.tune import score, tune, validated, validation_maps


def _sample(seed: int) -> tuple[Sample, HoverMaps]:
    """Drawn tissue and maps of a network that is sure of its class and wrong in one of five nuclei."""
    image = draw_tissue(200, 220, seed)
    labels = label_ink(image)
    rng = np.random.default_rng(seed)
    types = np.concatenate([[0], rng.integers(1, 7, labels.max())]).astype(np.uint8)
    said = np.where(rng.random(len(types)) < 0.2, 1 + types % 6, types)
    said[0] = 0
    type_prob = np.full((*labels.shape, 7), 0.002, np.float32)
    np.put_along_axis(type_prob, said[labels][..., None].astype(np.int64), 0.988, -1)
    maps = HoverMaps((labels > 0).astype(np.float32) * 0.9, hv_targets(labels), type_prob)
    return Sample(f"s{seed}", "drawn", f"s{seed}", image, labels, types, 0.5), maps


@pytest.fixture(scope="module")
def validation() -> tuple[list[Sample], list[HoverMaps]]:
    samples, maps = zip(*(_sample(s) for s in range(3)), strict=True)
    return list(samples), list(maps)


def test_tuning_never_ends_below_its_start(validation: tuple[list[Sample], list[HoverMaps]]) -> None:
    spoilt = dataclasses.replace(hover.NATIVE, smallest_object=120, opening_size=5)
    best, tried = tune(spoilt, *validation, rounds=1)
    assert score(best, *validation) > score(spoilt, *validation)
    assert score(best, *validation) == max(row["bpq"] for row in tried)


def test_a_network_that_is_too_sure_is_told_to_doubt(validation: tuple[list[Sample], list[HoverMaps]]) -> None:
    fitted = calibrate.fit(*validation, hover.NATIVE)
    assert fitted.temperature > 1.5
    assert fitted.ece_after < fitted.ece_before / 2
    assert fitted.nuclei > 100


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    probabilities = np.tile([[0.75, 0.25]], (400, 1))
    truth = np.tile([0, 0, 0, 1], 100)
    assert ece(probabilities, truth) == pytest.approx(0)
    assert ece(probabilities, np.ones(400, np.int64)) == pytest.approx(0.75)


def test_without_a_nucleus_there_is_nothing_to_calibrate_on(
    validation: tuple[list[Sample], list[HoverMaps]],
) -> None:
    samples, maps = validation
    blank = [HoverMaps(np.zeros_like(m.np_prob), m.hv, m.type_prob) for m in maps]
    with pytest.raises(ValueError, match="no validation nucleus"):
        calibrate.fit(samples, blank, hover.NATIVE)


def test_validation_scores_see_wrong_classes_and_nothing_else(
    validation: tuple[list[Sample], list[HoverMaps]],
) -> None:
    scores = validated(hover.NATIVE, *validation)
    assert scores["bpq"] == pytest.approx(score(hover.NATIVE, *validation), abs=1e-4)
    assert scores["mpq_plus"] < 0.9 * scores["bpq"]
    assert scores["detection_f1"] > 0.99


def test_maps_of_a_run_are_made_once_for_its_weights_views_and_precision(
    tmp_path: Path, validation: tuple[list[Sample], list[HoverMaps]]
) -> None:
    samples, weights = validation[0][:1], tmp_path / "best.pt"

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        torch.save({"network": build("lite-narrow").state_dict(), "name": "lite-narrow"}, weights)

    save(1)
    (first,) = validation_maps(tmp_path, samples)
    assert first.np_prob.shape == samples[0].image.shape[:2]
    (written,) = (tmp_path / "validation-maps").glob("*/s0.npz")
    when = written.stat().st_mtime_ns
    (again,) = validation_maps(tmp_path, samples)
    assert first.furthest_from(again) == 0
    assert written.stat().st_mtime_ns == when
    save(2)
    os.utime(weights, (0, 0))  # older than the maps, as what a backup brings back is
    (other,) = validation_maps(tmp_path, samples)
    assert first.furthest_from(other) > 0
    for way in ({"profile": "accurate"}, {"bf16": True}):
        (differs,) = validation_maps(tmp_path, samples, **way)
        assert differs.furthest_from(other) > 0
