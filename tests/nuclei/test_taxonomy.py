"""Colours of classes are told apart by everybody, on stained tissue."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from app.nuclei.taxonomy import CLASSES, NAMES

LINEAR = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
GROUND = [(90, 60, 130), (120, 85, 150), (230, 180, 210), (200, 130, 175), (245, 242, 246)]  # chromatin to glass


def as_seen(colours, sight):
    """CIELAB of 8-bit sRGB colours as somebody sees them."""
    encoded = np.asarray(colours) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(LINEAR[sight]), 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]


@pytest.mark.parametrize("sight", LINEAR)
def test_any_two_classes_are_told_apart(sight):
    lab = as_seen([one.colour for one in CLASSES], sight)
    apart = deltaE_ciede2000(lab[:, None], lab[None])[np.triu_indices(len(CLASSES), 1)]
    assert apart.min() >= 21


@pytest.mark.parametrize("sight", LINEAR)
def test_every_class_stands_out_from_stained_tissue(sight):
    lab, ground = as_seen([one.colour for one in CLASSES], sight), as_seen(GROUND, sight)
    assert deltaE_ciede2000(lab[:, None], ground[None]).min() >= 10


def test_classes_are_numbered_from_one_in_their_order():
    assert [one.id for one in CLASSES] == list(range(1, len(NAMES) + 1))
