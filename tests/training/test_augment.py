"""Variation changes colours, not places."""

from __future__ import annotations

import numpy as np
import pytest

from training.augment import Jitter, compressed, recolour, sharpened, symmetry


def test_no_jitter_changes_nothing_but_a_rounding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    still = Jitter(brightness=0, contrast=0, saturation=0, hue=0, blur=0)
    assert np.abs(recolour(image, still, np.random.default_rng(1)).astype(int) - image).max() <= 1


@pytest.mark.parametrize(
    "jitter",
    [Jitter(), Jitter(stain=0.3), Jitter(blur=1), Jitter(blur=0, sharpen=1), Jitter(jpeg=1)],
    ids=["colour", "stain", "blur", "sharpen", "jpeg"],
)
def test_recolouring_keeps_size_and_type_and_changes_pixels(jitter: Jitter) -> None:
    image = np.random.default_rng(0).integers(60, 220, (32, 40, 3), np.uint8)
    varied = recolour(image, jitter, np.random.default_rng(2))
    assert (varied.shape, varied.dtype) == (image.shape, np.uint8)
    assert not np.array_equal(varied, image)


def test_glass_stays_white_under_stain_variation() -> None:
    glass = np.full((16, 16, 3), 255, np.uint8)
    only_stain = Jitter(brightness=0, contrast=0, saturation=0, hue=0, blur=0, stain=0.3)
    assert recolour(glass, only_stain, np.random.default_rng(3)).min() >= 250


def test_all_eight_symmetries_are_drawn_alike() -> None:
    rng = np.random.default_rng(0)
    drawn = [symmetry(rng).name for _ in range(800)]
    assert len(set(drawn)) == 8
    assert all(60 < drawn.count(name) < 140 for name in set(drawn))


def test_sharpening_steepens_an_edge_by_its_amount_and_leaves_flat_colour() -> None:
    edge = np.full((16, 16, 3), 80, np.uint8)
    edge[:, 8:] = 160
    steps = [int(s[8, 8, 0]) - int(s[8, 7, 0]) for s in (sharpened(edge, amount) for amount in (0, 0.5, 1, 2))]
    assert steps == [80, 100, 120, 160]  # the kernel (1, 2, 1) / 4 takes half a step away
    assert np.array_equal(sharpened(edge, 0), edge)
    assert np.array_equal(sharpened(edge, 2)[:, :6], edge[:, :6])


def test_an_image_is_blurred_or_sharpened_never_both() -> None:
    image = np.random.default_rng(0).integers(60, 220, (32, 40, 3), np.uint8)
    varied = [recolour(image, Jitter(blur=1, sharpen=s), np.random.default_rng(2)) for s in (0, 1)]
    assert np.array_equal(*varied)


def test_a_trip_through_jpeg_blurs_blocks_and_leaves_flat_colour() -> None:
    noise = np.random.default_rng(0).integers(60, 220, (32, 40, 3), np.uint8)
    flat = np.full((32, 40, 3), (230, 180, 210), np.uint8)
    drift = [np.abs(compressed(noise, quality).astype(int) - noise).mean() for quality in (95, 70, 40)]
    assert drift == sorted(drift)
    assert np.abs(compressed(flat, 40).astype(int) - flat).max() <= 4
