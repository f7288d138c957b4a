"""Scores and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from app.nuclei import metrics
from training.scores import ImageScore, compare, score_image, summarise, without_one


def _map(seed: int, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    instances, types = np.zeros((size, size), np.int32), np.zeros((size, size), np.uint8)
    for number in range(1, 40):
        row, col = rng.integers(0, size - 12, 2)
        instances[row : row + 10, col : col + 8] = number
    kinds = rng.integers(1, 7, 40).astype(np.uint8)
    types[instances > 0] = kinds[instances[instances > 0]]
    return instances, types


def _shifted(maps: tuple[np.ndarray, np.ndarray], by: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.roll(m, by, 1) for m in maps)  # type: ignore[return-value]


def _score(seed: int, by: int) -> ImageScore:
    truth = _map(seed)
    found = _shifted(truth, by)
    return score_image(f"image{seed}", truth, found, [(truth, found)])


def test_a_perfect_prediction_scores_one_everywhere() -> None:
    result = summarise([_score(s, 0) for s in range(3)])
    for name in ("mpq_plus", "bpq", "dice", "detection_f1", "r2"):
        assert result[name]["value"] == pytest.approx(1, abs=1e-4)


def test_scores_over_images_equal_the_domains_metrics() -> None:
    pairs = [(*_map(s), *_shifted(_map(s), 2)) for s in range(3)]
    result = summarise([_score(s, 2) for s in range(3)])
    assert result["mpq_plus"]["value"] == pytest.approx(metrics.mpq_plus(pairs).mean, abs=1e-12)
    assert result["bpq"]["value"] == pytest.approx(np.mean([metrics.panoptic(p[0], p[2]).pq for p in pairs]), abs=1e-12)


def test_counts_are_told_as_found_by_true() -> None:
    truth = _map(1)
    half = np.where(truth[0] % 2, truth[0], 0).astype(np.int32), np.where(truth[0] % 2, truth[1], 0).astype(np.uint8)
    none = np.zeros((256, 256), np.int32), np.zeros((256, 256), np.uint8)
    one_class = half[0], np.where(half[0] > 0, 2, 0).astype(np.uint8)
    result = summarise([score_image("half", one_class, one_class, []), score_image("none", one_class, none, [])])
    ratio = result["count_ratio_per_class"]
    assert ratio["epithelial"] == {"value": 0.5, "low": 0.0, "high": 1.0}
    assert ratio["plasma"] == {"value": 0.0, "low": 0.0, "high": 0.0}  # there are none


def test_what_hangs_on_one_image_is_told() -> None:
    images = [_score(1, 0), _score(2, 0), _score(3, 9)]
    rows = without_one(images, "bpq")
    assert [rows[-1]["name"], rows[-1]["value"]] == ["image3", pytest.approx(1, abs=1e-4)]
    assert rows[0]["value"] == pytest.approx(np.mean([images[0].bpq, images[2].bpq]))


def test_the_value_lies_in_its_interval() -> None:
    result = summarise([_score(s, s % 4) for s in range(8)])
    for name in ("mpq_plus", "bpq", "dice", "detection_f1"):
        assert result[name]["low"] <= result[name]["value"] <= result[name]["high"]


def test_a_better_model_is_told_from_a_worse_one_on_the_same_images() -> None:
    better, worse = ([_score(s, by) for s in range(8)] for by in (1, 3))
    gaps = compare(better, worse)
    assert all(gaps[name]["low"] > 0 for name in ("bpq", "dice"))
    assert compare(better, better)["bpq"] == {"value": 0, "low": 0, "high": 0}


def test_a_paired_comparison_needs_the_same_images() -> None:
    with pytest.raises(ValueError, match="same images"):
        compare([_score(1, 0)], [_score(2, 0)])
