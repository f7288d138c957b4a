"""Offsets inside nuclei."""

from __future__ import annotations

import numpy as np
import pytest

from app.nuclei.targets import hv_targets
from app.nuclei.views import VIEWS, View


def _discs(*places: tuple[int, int, int], size: int = 80) -> np.ndarray:
    rows, cols = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for number, (row, col, radius) in enumerate(places, 1):
        labels[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2] = number
    return labels


def test_each_side_of_a_nucleus_reaches_one() -> None:
    labels = np.zeros((9, 12), np.int32)
    labels[2:7, 1:11] = 4
    hv = hv_targets(labels)
    # ten columns 1..10: their mean 5.5 rounds to 6, five to the left and four to the right
    np.testing.assert_allclose(hv[3, 1:11, 0], [-1, -0.8, -0.6, -0.4, -0.2, 0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(hv[2:7, 3, 1], [-1, -0.5, 0, 0.5, 1])


def test_background_and_tiny_nuclei_carry_no_offsets() -> None:
    labels = np.zeros((6, 9), np.int32)
    labels[0, :7] = 1
    labels[2:4, :4] = 2
    hv = hv_targets(labels)
    assert not hv[labels == 1].any()
    assert not hv[labels == 0].any()
    assert hv[labels == 2].any()


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_a_turned_tissue_turns_its_arrows(view: View) -> None:
    discs = _discs((40, 20, 9), (40, 57, 8))
    there_and_back = view.unsee_hv(hv_targets(view.see(discs)))
    np.testing.assert_allclose(there_and_back, hv_targets(discs), atol=1e-6)


def test_ids_need_not_be_dense() -> None:
    discs = _discs((20, 20, 9), (50, 50, 8))
    gapped = np.where(discs == 2, 700, discs)
    np.testing.assert_array_equal(hv_targets(discs), hv_targets(gapped))


def test_an_empty_map_gives_empty_offsets() -> None:
    assert not hv_targets(np.zeros((5, 7), np.int32)).any()
    assert hv_targets(np.zeros((0, 4), np.int32)).shape == (0, 4, 2)
