"""Colours that a DICOM file mislabels are noticed, and only those."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest

from app.slides.dicoms import mislabelled, to_rgb
from tests.drawn import draw_tissue

TISSUE = draw_tissue(64, 64)
YCBCR = imagecodecs.jpeg_encode(TISSUE, level=90)
REAL_RGB = imagecodecs.jpeg_encode(TISSUE, level=90, colorspace="rgb", outcolorspace="rgb")


def dicom(photometric: bytes, frame: bytes) -> bytes:
    """The elements that are looked at: photometric interpretation and encapsulated pixel data."""
    attribute = b"\x28\x00\x04\x00CS" + struct.pack("<H", len(photometric)) + photometric
    pixels = b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", 0xFFFFFFFF)
    items = b"\xfe\xff\x00\xe0" + bytes(4) + b"\xfe\xff\x00\xe0" + struct.pack("<I", len(frame)) + frame
    return bytes(128) + b"DICM" + attribute + pixels + items


@pytest.mark.parametrize(
    ("photometric", "frame", "lies"),
    [
        (b"RGB ", YCBCR, True),
        (b"RGB ", REAL_RGB, False),
        (b"YBR_FULL_422", YCBCR, False),
        (b"RGB ", b"no JPEG at all", False),
    ],
    ids=["jfif called RGB", "RGB", "YCbCr called so", "not compressed"],
)
def test_only_ycbcr_that_is_called_rgb_is_mislabelled(tmp_path, photometric, frame, lies):
    (tmp_path / "a.dcm").write_bytes(dicom(photometric, frame))
    assert mislabelled(tmp_path / "a.dcm") is lies


@pytest.mark.parametrize("length", [0, 132, 140, 150, 165, 170])
def test_a_file_that_breaks_off_is_not_judged(tmp_path, length):
    (tmp_path / "a.dcm").write_bytes(dicom(b"RGB ", YCBCR)[:length])
    assert not mislabelled(tmp_path / "a.dcm")


def test_white_is_white_and_red_is_red():
    figures = np.array([[[255, 128, 128], [76, 85, 255], [0, 128, 128]]], np.uint8)
    assert np.abs(to_rgb(figures).astype(int) - [[[255, 255, 255], [255, 0, 0], [0, 0, 0]]]).max() <= 1
