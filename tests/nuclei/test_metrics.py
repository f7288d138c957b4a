"""Scores: the challenge's numbers, and laws that hold for any map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.nuclei import metrics
from app.nuclei.metrics import Panoptic, counts_224, detection_f1, dice, mpq_plus, panoptic, r2

pairs_of_maps = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(
        arrays(np.int32, shape, elements=st.integers(0, 4)), arrays(np.int32, shape, elements=st.integers(0, 4))
    )
)
many = settings(max_examples=150, deadline=None)


@pytest.fixture
def official(golden_root: Path) -> dict[str, object]:
    return json.loads((golden_root / "metrics.json").read_text())


def load(root: Path, name: str) -> metrics.TypedPair:
    with np.load(root / "separation" / name) as file:
        keys = "truth_instances", "truth_types", "reference_instances", "reference_types"
        return tuple(file[key] for key in keys)


def test_panoptic_quality_is_the_challenges(official, golden_root):
    scores = {}
    for name, tile in official["tiles"].items():
        truth, _, prediction, _ = load(golden_root, name)
        score = scores[name] = panoptic(truth, prediction)
        assert [score.tp, score.fp, score.fn] == tile["tp_fp_fn"]
        np.testing.assert_allclose(
            [score.dq, score.sq, score.pq], [tile[k] for k in ("dq", "sq", "pq")], rtol=0, atol=1e-9
        )
    assert np.mean([s.pq for s in scores.values()]) == pytest.approx(official["mean_pq"], abs=1e-9)


def test_class_sums_and_mpq_plus_are_the_challenges(official, golden_root):
    pairs = [load(golden_root, name) for name in official["tiles"]]
    for pair, tile in zip(pairs, official["tiles"].values(), strict=True):
        sums = [[s.tp, s.fp, s.fn, s.sum_iou] for s in metrics.class_panoptic([pair])]
        np.testing.assert_allclose(sums, tile["per_class_tp_fp_fn_sumiou"], rtol=0, atol=1e-9)
    score = mpq_plus(pairs)
    np.testing.assert_allclose(score.per_class, official["pq_plus_per_class"], rtol=0, atol=1e-9)
    assert score.mean == pytest.approx(official["mpq_plus"], abs=1e-9)


def test_counts_and_r2_are_the_challenges(official, golden_root):
    tiles = {name: tile for name, tile in official["tiles"].items() if "counts_truth" in tile}
    pairs = [load(golden_root, name) for name in tiles]
    truth = [counts_224(*pair[:2]) for pair in pairs]
    prediction = [counts_224(*pair[2:]) for pair in pairs]
    np.testing.assert_array_equal(truth, [tile["counts_truth"] for tile in tiles.values()])
    np.testing.assert_array_equal(prediction, [tile["counts_reference"] for tile in tiles.values()])
    score = r2(truth, prediction)
    np.testing.assert_allclose(score.per_class, official["r2_per_class"], rtol=0, atol=1e-9)
    assert score.mean == pytest.approx(official["r2"], abs=1e-9)


def plain_panoptic(truth: np.ndarray, prediction: np.ndarray) -> Panoptic:
    """By the definition, pair by pair."""
    ours, theirs = set(truth[truth > 0].tolist()), set(prediction[prediction > 0].tolist())
    overlaps = [
        ((truth == a) & (prediction == b)).sum() / ((truth == a) | (prediction == b)).sum()
        for a in ours
        for b in theirs
    ]
    hits = [iou for iou in overlaps if iou > 0.5]
    return Panoptic(len(hits), len(theirs) - len(hits), len(ours) - len(hits), float(sum(hits)))


@many
@given(pairs_of_maps)
def test_the_joint_histogram_follows_the_definition(pair):
    ours, plain = panoptic(*pair), plain_panoptic(*pair)
    assert (ours.tp, ours.fp, ours.fn) == (plain.tp, plain.fp, plain.fn)
    assert ours.sum_iou == pytest.approx(plain.sum_iou, abs=1e-12)


@many
@given(pairs_of_maps, st.permutations(range(1, 5)), st.integers(1, 10**6))
def test_numbering_does_not_matter(pair, order, stretch):
    table = np.array([0, *order], np.int64) * stretch
    plain, renumbered = panoptic(*pair), panoptic(table[pair[0]], pair[1])
    assert (plain.tp, plain.fp, plain.fn) == (renumbered.tp, renumbered.fp, renumbered.fn)
    assert plain.sum_iou == pytest.approx(renumbered.sum_iou)


@many
@given(pairs_of_maps)
def test_a_map_against_itself_is_perfect(pair):
    score = panoptic(pair[0], pair[0])
    assert score.pq == pytest.approx(1, abs=1e-5) or score.is_empty
    assert (score.fp, score.fn) == (0, 0)


@many
@given(pairs_of_maps)
def test_swapping_truth_and_prediction_swaps_what_was_missed(pair):
    there, back = panoptic(*pair), panoptic(*pair[::-1])
    assert (there.fp, there.fn, there.tp) == (back.fn, back.fp, back.tp)
    assert there.pq == pytest.approx(back.pq)


@many
@given(pairs_of_maps)
def test_a_sorted_histogram_counts_as_a_dense_one(pair):
    dense = panoptic(*pair)
    before, metrics.DENSE_BINS = metrics.DENSE_BINS, 0
    try:
        far_apart = panoptic(np.kron(pair[0], np.eye(1, dtype=np.int64)), pair[1])
    finally:
        metrics.DENSE_BINS = before
    assert far_apart == dense


def test_an_iou_of_one_half_is_no_match():
    score = panoptic(np.array([[1, 1]]), np.array([[1, 0]]))
    assert (score.tp, score.fp, score.fn) == (0, 1, 1)


def test_a_map_without_background_loses_no_nucleus():
    full = np.array([[3, 3], [8, 8]])
    assert (panoptic(full, full).tp, panoptic(full, full).fp) == (2, 0)


def test_nothing_against_nothing_scores_zero_and_says_so():
    score = panoptic(np.zeros((3, 3), int), np.zeros((3, 3), int))
    assert (score.pq, score.is_empty) == (0, True)


def test_mpq_plus_sums_over_images_before_it_divides():
    one, none = np.ones((1, 4), int), np.zeros((1, 4), int)
    found, missed = (one, one, one, one), (one, one, none, none)
    score = mpq_plus([found, missed])
    np.testing.assert_allclose(score.per_class, [1 / 1.5, 0, 0, 0, 0, 0], atol=1e-5)
    assert metrics.mpq([found, missed]) == pytest.approx(0.5, abs=1e-5)


def test_a_nucleus_of_the_wrong_class_is_missed_in_one_and_false_in_the_other():
    map_ = np.array([[1, 1, 0]])
    sums = metrics.class_panoptic([(map_, map_ * 2, map_, map_ * 5)])
    assert [(s.tp, s.fp, s.fn) for s in sums] == [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0), (0, 1, 0), (0, 0, 0)]


def test_mean_pq_leaves_out_images_without_nuclei():
    none, one = np.zeros((2, 2), int), np.ones((2, 2), int)
    assert metrics.bpq([(none, none), (one, one)]) == pytest.approx(1, abs=1e-5)
    assert np.isnan(metrics.bpq([(none, none)]))


def test_r2_without_variance_is_one_only_if_all_counts_are_met():
    np.testing.assert_array_equal(r2([[3, 3], [3, 3]], [[3, 3], [3, 4]]).per_class, [1, 0])


def test_r2_can_fall_below_zero():
    np.testing.assert_allclose(r2([[0], [2]], [[2], [0]]).per_class, [-3])


def test_r2_refuses_counts_that_do_not_match():
    with pytest.raises(ValueError, match="alike"):
        r2([[1, 2]], [[1, 2, 3]])


def test_a_nucleus_counts_when_any_pixel_lies_in_the_crop():
    instances, types = np.zeros((256, 256), int), np.zeros((256, 256), int)
    instances[10:17, 100], types[10:17, 100] = 1, 3  # row 16 is the first inside
    instances[10:16, 50], types[10:16, 50] = 2, 1
    np.testing.assert_array_equal(counts_224(instances, types), [0, 0, 1, 0, 0, 0])


@many
@given(pairs_of_maps)
def test_dice_is_symmetric_and_one_only_for_equal_masks(pair):
    assert dice(*pair) == dice(*pair[::-1])
    assert (dice(*pair) == 1) == ((pair[0] > 0) == (pair[1] > 0)).all()


def test_detection_takes_as_many_matches_as_it_can():
    truth, prediction = np.zeros((1, 20), int), np.zeros((1, 20), int)
    truth[0, [4, 8]] = 1, 2
    prediction[0, [6, 11]] = 1, 2  # 6 is as near to 4 as to 8; 11 reaches 8 alone
    score = detection_f1(truth, prediction, radius=3)
    assert (score.tp, score.fp, score.fn, score.f1, score.precision, score.recall) == (2, 0, 0, 1, 1, 1)


def test_detection_matches_one_to_one_and_within_the_radius():
    truth, prediction = np.zeros((1, 20), int), np.zeros((1, 20), int)
    truth[0, 4] = 1
    prediction[0, [3, 5, 15]] = 1, 2, 3
    score = detection_f1(truth, prediction, radius=1)
    assert (score.tp, score.fp, score.fn) == (1, 2, 0)
    assert detection_f1(truth, prediction, radius=0.5).f1 == 0


@pytest.mark.parametrize("empty_side", [0, 1])
def test_detection_of_nothing_finds_nothing(empty_side):
    maps = [np.ones((3, 3), int), np.ones((3, 3), int)]
    maps[empty_side] = np.zeros((3, 3), int)
    assert detection_f1(*maps, radius=5).tp == 0


def test_detection_per_class_asks_for_the_class_too():
    instances = np.array([[1, 0, 0, 2, 0, 0, 3]])
    pair = (instances, np.array([[1, 0, 0, 2, 0, 0, 2]]), instances, np.array([[1, 0, 0, 2, 0, 0, 6]]))
    found = [(d.tp, d.fp, d.fn) for d in metrics.detection_f1_per_class(pair, radius=1)]
    assert found == [(1, 0, 0), (1, 0, 1), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 1, 0)]


def test_maps_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="different shape"):
        panoptic(np.zeros((2, 2), int), np.zeros((2, 3), int))
