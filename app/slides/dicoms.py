"""Does a DICOM file tell the truth about its colours?

Some converters write PhotometricInterpretation RGB and compress the frames as ordinary JPEG, which is YCbCr. OpenSlide
believes the attribute and hands the YCbCr figures out as if they were RGB: white becomes salmon, and nothing fails. A
frame with a JFIF header, with Adobe's transform mark or with subsampled chroma is YCbCr whatever the attribute says
(JFIF 1.02; ITU-T T.872, 6.5.3; libjpeg decides likewise).
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from app.nuclei.types import UInt8

_SEARCHED = 16 * 2**20  # the attributes and the first frame's header lie well before
_PHOTOMETRIC = b"\x28\x00\x04\x00CS"
_FRAMES = b"\xe0\x7f\x10\x00"  # PixelData
_ITEM = b"\xfe\xff\x00\xe0"
_SOI, _SOS, _APP0, _APP14 = b"\xff\xd8", 0xDA, 0xE0, 0xEE
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def mislabelled(path: Path) -> bool:
    """Whether the file claims RGB while its JPEG frames are YCbCr.

    Args:
        path: a DICOM file, explicit VR little endian, as all encapsulated ones are.
    """
    with path.open("rb") as file:
        data = file.read(_SEARCHED)
    if _photometric(data) != b"RGB":
        return False
    at = data.find(_FRAMES)
    start = data.find(_SOI + b"\xff", max(at, 0))
    return at >= 0 and data.find(_ITEM, at, start) > 0 and _is_ycbcr(data[start : start + 2**16])


def to_rgb(ycbcr: UInt8) -> UInt8:
    """YCbCr figures (H, W, 3), full range, as RGB (JFIF 1.02)."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(ycbcr[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB), np.uint8)


def _photometric(data: bytes) -> bytes:
    at = data.find(_PHOTOMETRIC)
    if at < 0 or at + 8 > len(data):
        return b""
    (length,) = struct.unpack_from("<H", data, at + 6)
    return data[at + 8 : at + 8 + length].strip(b" \0")


def _is_ycbcr(jpeg: bytes) -> bool:
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] != _SOS:
        marker, length = jpeg[at + 1], struct.unpack_from(">H", jpeg, at + 2)[0]
        body = jpeg[at + 4 : at + 2 + length]
        if marker == _APP0 and body.startswith(b"JFIF\0"):
            return True
        if marker == _APP14 and body.startswith(b"Adobe"):
            return body[11:12] == b"\1"
        if marker in _START_OF_FRAME:
            return len(body) >= 15 and body[5] == 3 and body[7] != body[10]  # sampling of the first two components
        at += 2 + length
    return False
