"""From labels to nuclei: one region each, none lost, none counted twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from app.nuclei.instances import describe, tidied, tidy
from app.nuclei.jit import HAVE_NUMBA
from app.nuclei.types import Int32, Nuclei

label_maps = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.int32, shape, elements=st.sampled_from([0, 0, 1, 1, 1, 2, 2, 3, 7]))
)
blocky_maps = label_maps.map(lambda m: np.kron(m, np.ones((2, 2), np.int32)))
messy = settings(max_examples=150, deadline=None)


def some_probs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    probs = np.random.default_rng(seed).random((*shape, 7)).astype(np.float32)
    return probs / probs.sum(axis=-1, keepdims=True)


def assert_same(a: Nuclei, b: Nuclei) -> None:
    for name in ("id", "type", "area", "bbox", "centroid", "covariance"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype
    for name in ("type_prob", "class_probs"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(a.rings.points, b.rings.points)
    np.testing.assert_array_equal(a.rings.offsets, b.rings.offsets)


@messy
@given(label_maps | blocky_maps)
def test_every_nucleus_becomes_one_region_without_holes(labels):
    tidied, _, _ = tidy(labels)
    for number in range(1, tidied.max() + 1):
        own = tidied == number
        assert ndimage.label(own)[1] == 1
        assert (ndimage.binary_fill_holes(own) == own).all()


@messy
@given(label_maps | blocky_maps)
def test_no_nucleus_is_lost_silently(labels):
    tidied, repaired, dropped = tidy(labels)
    assert tidied.max() + dropped == len(set(labels[labels > 0].tolist()))
    assert repaired <= tidied.max()
    seen = list(dict.fromkeys(tidied[tidied > 0].tolist()))
    assert seen == list(range(1, tidied.max() + 1))


@messy
@given(label_maps | blocky_maps)
def test_tidying_twice_changes_nothing(labels):
    tidied = tidy(labels)[0]
    again, repaired, dropped = tidy(tidied)
    np.testing.assert_array_equal(again, tidied)
    assert (repaired, dropped) == (0, 0)


@messy
@given(label_maps | blocky_maps)
def test_kernel_and_library_tidy_alike(labels):
    (a, *counts_a), (b, *counts_b) = tidy(labels, compiled=True), tidy(labels, compiled=False)
    np.testing.assert_array_equal(a, b)
    assert counts_a == counts_b


def test_a_tidy_map_is_handed_back_as_it_is():
    labels = np.array([[1, 1, 0], [0, 0, 2]], np.int32)
    assert tidy(labels)[0] is labels


def test_a_smaller_part_is_cut_off():
    labels = np.array([[5, 0, 5, 5], [0, 0, 5, 5]], np.uint16)
    tidied, repaired, dropped = tidy(labels)
    np.testing.assert_array_equal(tidied, [[0, 0, 1, 1], [0, 0, 1, 1]])
    assert (repaired, dropped) == (1, 0)


def test_of_equal_parts_the_first_in_reading_order_stays():
    np.testing.assert_array_equal(tidy(np.array([[3, 0, 3]], np.int32))[0], [[1, 0, 0]])


def test_a_hole_behind_a_pinch_is_filled():
    labels = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]], np.int32)
    tidied, repaired, _ = tidy(labels)
    np.testing.assert_array_equal(tidied, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    assert repaired == 1


def test_a_nucleus_enclosed_by_another_is_absorbed_and_counted():
    labels = np.full((5, 5), 9, np.int32)
    labels[2, 2] = 4
    tidied, repaired, dropped = tidy(labels)
    np.testing.assert_array_equal(tidied, np.ones((5, 5), np.int32))
    assert (repaired, dropped) == (1, 1)


def test_labels_beyond_the_number_of_pixels_are_fine():
    labels = np.array([[0, 2**31 - 1], [7, 0]], np.int64)
    np.testing.assert_array_equal(tidy(labels)[0], [[0, 1], [2, 0]])


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_an_empty_map_gives_an_empty_table(shape):
    tidied, *counts = tidy(np.zeros(shape, np.int32))
    for compiled in (True, False):
        nuclei = describe(tidied, np.zeros((*shape, 7), np.float32), compiled=compiled)
        assert (len(nuclei), len(nuclei.rings), counts) == (0, 0, [0, 0])
        columns = {
            n: (getattr(nuclei, n).shape, getattr(nuclei, n).dtype.name) for n in Nuclei.__slots__ if n != "rings"
        }
        assert columns == {
            "id": ((0,), "int32"),
            "type": ((0,), "uint8"),
            "type_prob": ((0,), "float32"),
            "class_probs": ((0, 6), "float32"),
            "centroid": ((0, 2), "float64"),
            "bbox": ((0, 4), "float64"),
            "area": ((0,), "float64"),
            "covariance": ((0, 3), "float64"),
        }


def test_the_table_is_in_the_callers_pixels():
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 2:6] = 1
    nuclei = describe(labels, some_probs((6, 8)), scale=(2.0, 3.0))
    np.testing.assert_array_equal(nuclei.bbox, [[4, 3, 12, 9]])
    np.testing.assert_array_equal(nuclei.centroid, [[8, 6]])
    np.testing.assert_array_equal(nuclei.area, [8 * 6])
    np.testing.assert_allclose(nuclei.covariance, [[8**2 / 12, 6**2 / 12, 0]])
    np.testing.assert_array_equal(nuclei.rings[0], [[4, 3], [12, 3], [12, 9], [4, 9], [4, 3]])


def test_the_axes_of_a_disc_are_its_diameter():
    rows, cols = np.mgrid[:101, :101]
    disc = (np.hypot(rows - 50, cols - 50) <= 40).astype(np.int32)
    np.testing.assert_allclose(describe(disc, some_probs(disc.shape)).axes(), [[80, 80]], rtol=0.01)


@messy
@given(label_maps | blocky_maps, st.integers(0, 99))
def test_kernel_and_library_describe_alike(labels, seed):
    tidied = tidy(labels)[0]
    probs = np.round(some_probs(tidied.shape, seed), 1)  # rounded, so that there are ties
    assert_same(describe(tidied, probs, (1.5, 0.5)), describe(tidied, probs, (1.5, 0.5), compiled=False))


@messy
@given(label_maps | blocky_maps)
def test_map_table_and_rings_speak_of_the_same_nuclei(labels):
    tidied = tidy(labels)[0]
    nuclei = describe(tidied, some_probs(tidied.shape))
    assert len(nuclei) == len(nuclei.rings) == tidied.max()
    np.testing.assert_array_equal(nuclei.id, np.unique(tidied[tidied > 0]))
    np.testing.assert_array_equal(nuclei.area, np.bincount(tidied.ravel(), minlength=1)[1:])
    assert nuclei.type.min(initial=1) >= 1


@messy
@given(label_maps, st.integers(0, 99))
def test_class_probabilities_sum_to_one(labels, seed):
    tidied = tidy(labels)[0]
    nuclei = describe(tidied, some_probs(tidied.shape, seed))
    np.testing.assert_allclose(nuclei.class_probs.sum(axis=1), np.ones(len(nuclei)), atol=1e-6)
    chosen = nuclei.class_probs[np.arange(len(nuclei)), nuclei.type.astype(int) - 1]
    np.testing.assert_array_equal(nuclei.type_prob, chosen)


def one_row(*pixels: list[float]) -> Nuclei:
    probs = np.array([pixels], np.float32)
    return describe(np.ones((1, len(pixels)), np.int32), probs)


def test_the_class_is_the_vote_and_not_the_mean():
    certain, leaning = [0, 0, 1, 0, 0, 0, 0], [0, 0, 0.4, 0.6, 0, 0, 0]
    nuclei = one_row(leaning, leaning, certain)
    assert nuclei.type[0] == 3
    np.testing.assert_allclose(nuclei.type_prob, [1.2 / 3], rtol=1e-6)


def test_background_gives_way_to_the_runner_up():
    background, plasma = [0.9, 0.1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]
    assert one_row(background, background, plasma).type[0] == 4


def test_background_alone_gives_the_most_probable_class():
    nuclei = one_row([0.8, 0, 0.05, 0, 0, 0.15, 0])
    assert nuclei.type[0] == 5
    np.testing.assert_allclose(nuclei.type_prob, [0.75], rtol=1e-6)


def test_ties_go_to_the_lowest_class():
    assert one_row([0, 0, 0, 0.5, 0.5, 0, 0]).type[0] == 3
    assert one_row([0, 0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0, 0]).type[0] == 2


def test_without_any_class_probability_all_are_alike():
    np.testing.assert_allclose(one_row([1, 0, 0, 0, 0, 0, 0]).class_probs, np.full((1, 6), 1 / 6), rtol=1e-6)


def test_half_precision_class_maps_and_any_layout_give_the_same_table():
    labels = tidy(np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.int32))[0]
    half = some_probs(labels.shape).astype(np.float16)
    single = half.astype(np.float32)
    assert_same(describe(labels, half), describe(labels, single))
    assert_same(describe(np.asfortranarray(labels), np.asfortranarray(single)), describe(labels, single))


def test_a_table_of_ten_thousand_nuclei_is_complete():
    labels = np.zeros((400, 400), np.int32)
    labels[::4, ::4] = np.arange(1, 10_001).reshape(100, 100)
    nuclei = describe(tidy(labels)[0], some_probs(labels.shape))
    assert len(nuclei) == 10_000
    np.testing.assert_array_equal(nuclei.area, np.ones(10_000))
    np.testing.assert_array_equal(nuclei.centroid[-1], [396.5, 396.5])


def test_maps_of_different_size_are_refused():
    with pytest.raises(ValueError, match="different size"):
        describe(np.zeros((4, 4), np.int32), np.zeros((4, 5, 7), np.float32))


@pytest.mark.parametrize("labels", [np.zeros(4, np.int32), np.array([[-1]])])
def test_what_is_no_label_map_is_refused(labels: Int32):
    with pytest.raises(ValueError, match="label map"):
        tidy(labels)


def test_nuclei_are_the_same_with_the_runs_at_hand():
    labels = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((5, 6))).astype(np.int32)
    type_prob = np.random.default_rng(0).dirichlet(np.ones(7), labels.shape).astype(np.float32)
    known = tidied(labels)
    assert (known.runs is not None) == HAVE_NUMBA
    found, anew = describe(known.instance_map, type_prob, runs=known.runs), describe(labels, type_prob)
    for name in ("type", "area", "centroid", "class_probs", "bbox"):
        np.testing.assert_array_equal(getattr(found, name), getattr(anew, name))
    np.testing.assert_array_equal(found.rings.points, anew.rings.points)
