"""Readers, splits and crops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat

from tests.training.layouts import write_lizard
from training.augment import Jitter
from training.data import lizard
from training.data.crops import HEAVIEST, GridCrops, RandomCrops, cut, weights_by_area
from training.data.sample import Sample, split_by_group


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_lizard(tmp_path, ["glas_1", "glas_2", "dpath_1", "consep_1"])


def test_every_instance_is_read_through_its_id(small: Path) -> None:
    sample = lizard.read(small, ["glas"])[0]
    assert {i: int(sample.types[i]) for i in (5, 8, 11)} == {5: 2, 8: 6, 11: 1}
    assert sample.counts["epithelial"] == sample.counts["connective"] == sample.counts["neutrophil"] == 1
    assert (sample.mpp, sample.image.shape, sample.image.dtype) == (0.5, (90, 110, 3), np.uint8)


def test_images_of_one_slide_are_one_group(small: Path) -> None:
    assert [s.group for s in lizard.read(small, ["glas", "dpath"])] == ["slide1", "slide0", "slide0"]


def test_only_the_named_sources_are_read(small: Path) -> None:
    assert [s.name for s in lizard.read(small, ["consep"])] == ["consep_1"]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda r: (r / "Lizard_Labels" / "info.csv").unlink(), "info.csv"),
        (lambda r: (r / "Lizard_Labels" / "Labels" / "glas_2.mat").unlink(), r"glas_2\.mat"),
        (lambda r: (r / "Lizard_Images" / "glas_2.png").write_bytes(b"no image"), r"glas_2\.png"),
        (lambda r: cv2.imwrite(str(r / "Lizard_Images" / "glas_2.png"), np.zeros((9, 9, 3), np.uint8)), "glas_2"),
        (lambda r: savemat(r / "Lizard_Labels" / "Labels" / "glas_2.mat", {"inst_map": 1}), "class, id"),
    ],
    ids=["no table", "no label", "no image", "other size", "no classes"],
)
def test_a_wrong_layout_is_named_with_its_file(small: Path, spoil: object, complaint: str) -> None:
    spoil(small)  # type: ignore[operator]
    with pytest.raises(lizard.WrongLayout, match=complaint):
        lizard.read(small, ["glas"])


def test_an_unknown_source_is_refused(small: Path) -> None:
    with pytest.raises(lizard.WrongLayout, match="kidney"):
        lizard.read(small, ["kidney"])


def test_a_slide_is_never_on_both_sides(small: Path) -> None:
    samples = lizard.read(small, ["glas", "dpath", "consep"])
    training, validation = split_by_group(samples, 0.5, seed=3)
    assert not {(s.collection, s.group) for s in training} & {(s.collection, s.group) for s in validation}
    assert sorted(s.name for s in [*training, *validation]) == sorted(s.name for s in samples)


def test_the_real_data_has_the_published_counts(data_root: Path) -> None:
    samples = lizard.read(data_root / "lizard", ["consep"])
    assert len(samples) == 16
    assert sum(s.counts["neutrophil"] for s in samples) == 30
    assert sum(s.counts["eosinophil"] for s in samples) == 52


def _crops(samples: list[Sample], **kwargs: float) -> RandomCrops:
    jitter = Jitter(stain=0.2, scale=0.15)
    return RandomCrops(samples, size=64, length=6, jitter=jitter, rare_share=kwargs.get("rare_share", 0.5), seed=1)


def test_a_crop_is_the_same_whenever_it_is_asked_for(small: Path) -> None:
    samples = lizard.read(small, ["glas"])
    first, second = _crops(samples)[3], _crops(samples)[3]
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["image"], _crops(samples)[4]["image"])


def test_another_epoch_has_other_crops(small: Path) -> None:
    crops = _crops(lizard.read(small, ["glas"]))
    before = crops[0]["image"]
    crops.epoch = 1
    assert not torch.equal(before, crops[0]["image"])


def test_targets_of_a_crop_agree_with_each_other(small: Path) -> None:
    for example in (_crops(lizard.read(small, ["glas"]))[i] for i in range(6)):
        assert torch.equal(example["np"] > 0, example["nc"] > 0)
        assert not example["hv"][:, example["np"] == 0].any()


def test_rare_classes_are_drawn_as_often_as_common_ones(small: Path) -> None:
    crops = _crops(lizard.read(small, ["glas", "dpath"]), rare_share=1.0)
    assert all((crops[i]["nc"] > 0).any() for i in range(6))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_nuclei_weigh_by_their_area_and_all_of_them_what_they_did(power: float) -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[:2, :8], labels[10:16, :6] = 1, 3  # 16 and 36 pixels
    of_id = weights_by_area([_sample(labels)], power)[0]
    assert of_id[0] == 1
    assert of_id[1] / of_id[3] == pytest.approx((36 / 16) ** power)
    assert of_id[labels][labels > 0].sum() == pytest.approx(52)


def test_no_nucleus_weighs_out_of_all_proportion() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[0, :9], labels[10:] = np.arange(1, 10), 10  # nine of one pixel, one of 1200
    of_id = weights_by_area([_sample(labels)], 1.0)[0]
    assert of_id[1] == HEAVIEST
    assert of_id[10] == 1 / HEAVIEST


def test_a_crop_says_what_its_pixels_weigh(small: Path) -> None:
    samples = lizard.read(small, ["glas"])
    assert "weight" not in _crops(samples)[0]
    crop = RandomCrops(samples, 64, 6, Jitter(), 0.5, seed=1, by_area=0.5)[0]
    assert crop["weight"].shape == crop["np"].shape
    assert (crop["weight"][crop["np"] == 0] == 1).all()
    assert (crop["weight"][crop["np"] == 1] > 0).all()


def _sample(labels: np.ndarray) -> Sample:
    image = np.zeros((*labels.shape, 3), np.uint8)
    return Sample("one", "glas", "slide", image, labels, np.ones(labels.max() + 1, np.uint8), 0.5)


def test_the_grid_covers_an_image_edge_to_edge(small: Path) -> None:
    grid = GridCrops(lizard.read(small, ["consep"]), 32)
    assert len(grid) == 2 * 3
    assert grid[0]["image"].shape == (3, 32, 32)


@pytest.mark.parametrize("side", [1, 5, 40])
def test_a_cut_is_square_even_beyond_the_image(side: int) -> None:
    piece = cut(np.arange(63).reshape(7, 9), -3, 100, side)
    assert piece.shape == (side, side)
