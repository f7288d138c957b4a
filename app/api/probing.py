"""What do these bytes claim to be, how large, and are they all there? Answered before a pixel is allocated.

Sources: PNG specification (third edition), sections 5 and 11; ITU-T T.81 annex B for JPEG; TIFF 6.0 section 2;
ISO/IEC 15444-1 annex A for JPEG 2000.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from app.nuclei.errors import InvalidImage, UnsupportedMediaType

Format = Literal["png", "jpeg", "tiff"]
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


class Size(NamedTuple):
    """Width and height that a header announces, in pixels."""

    width: int
    height: int


def detect(data: bytes) -> Format:
    """The format of `data` by its first bytes.

    Raises:
        InvalidImage: if there are no bytes.
        UnsupportedMediaType: if it is none of PNG, JPEG, TIFF.
    """
    if not data:
        raise InvalidImage("the request holds no image: the body is empty")
    if data[:8] == PNG_MAGIC:
        return "png"
    if data[:3] == JPEG_MAGIC:
        return "jpeg"
    if data[:4] in TIFF_MAGIC:
        return "tiff"
    raise UnsupportedMediaType("the bytes are neither PNG, JPEG nor TIFF, whatever they were declared to be")


def png_size(data: bytes) -> Size:
    """Size of a PNG from its first chunk.

    Raises:
        InvalidImage: if the header chunk is missing or cut.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise InvalidImage("the PNG has no complete header")
    return _positive(*struct.unpack(">II", data[16:24]))


def png_exif(data: bytes) -> bytes:
    """The EXIF block of a PNG, empty if it has none; refuses a PNG with a missing, cut or damaged chunk.

    Raises:
        InvalidImage: naming what is wrong.
    """
    at, exif, view = len(PNG_MAGIC), b"", memoryview(data)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise InvalidImage("the PNG is damaged: a checksum does not fit")
        if name == b"IEND":
            return exif
        exif, at = data[at + 8 : end - 4] if name == b"eXIf" else exif, end
    raise InvalidImage("the PNG is truncated")


def jpeg_size(data: bytes) -> Size:
    """Size of a JPEG from its frame header.

    Raises:
        InvalidImage: if there is none before the scan, or if it leaves the height open.
    """
    for marker, at, length in _jpeg_segments(data):
        if marker in START_OF_FRAME and length >= 8:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return _positive(width, height)
    raise InvalidImage("the JPEG has no frame header")


def jpeg_2000_size(data: bytes) -> Size:
    """Size of a bare JPEG 2000 codestream from its SIZ segment, which comes first.

    Raises:
        InvalidImage: if it does not begin with one.
    """
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 24:
        raise InvalidImage("the JPEG 2000 codestream has no header")
    right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
    return _positive(right - left, bottom - top)


def check_jpeg_complete(data: bytes) -> None:
    """Refuse a JPEG without an end-of-image marker behind its scan; decoders fill the rest with grey.

    Raises:
        InvalidImage: if it is cut off.
    """
    scan = next((at for marker, at, _ in _jpeg_segments(data) if marker == START_OF_SCAN), None)
    if scan is None or data.rfind(END_OF_IMAGE) < scan:
        raise InvalidImage("the JPEG is truncated")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, offset of the length field and length of each segment up to the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in WITHOUT_LENGTH:  # fill byte, or a marker that stands alone
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if at + 2 + length > len(data):
            return
        yield marker, at + 2, length
        if marker == START_OF_SCAN:
            return
        at += 2 + length


def _positive(width: int, height: int) -> Size:
    if width < 1 or height < 1:
        raise InvalidImage(f"the header announces an image of {width} x {height} pixels")
    return Size(width, height)
