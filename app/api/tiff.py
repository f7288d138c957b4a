"""How is the first page of a TIFF read as RGB, and which TIFFs are refused, with the reason?

Read: strips or tiles, contiguous or planar, 1, 8 or 16 bits, greyscale, palette, RGB with or without alpha, plain,
LZW, Deflate, PackBits, JPEG or JPEG 2000. Everything else is named and refused. A few bytes can announce much work,
so the layout is checked before the first segment is decompressed.

um per pixel come from OME-XML (`PhysicalSizeX`, `PhysicalSizeY`) or an Aperio description (`MPP`); resolution tags
speak of printing and are ignored. Sources: TIFF 6.0; OME schema 2016-06.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from app.api.colour import Alpha, eight_bits, rgb
from app.api.probing import Size, jpeg_2000_size, jpeg_size
from app.nuclei.errors import InvalidImage, PayloadTooLarge, UnsupportedMediaType
from app.nuclei.types import UInt8

JPEG_2000 = {COMPRESSION.APERIO_JP2000_YCBC, COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.JPEG2000}
READABLE = {
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.DEFLATE,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.PACKBITS,
    COMPRESSION.JPEG,
    *JPEG_2000,
}
COLOURS = {PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE, PHOTOMETRIC.YCBCR}
ORIENTATION_TAG = 274
LYING = 5
"""Orientations from here on have the rows of the upright image in columns."""
ALPHA: dict[int, Alpha] = {1: "premultiplied", 2: "straight"}
SMALLEST_LIMIT = 2**22  # small images may come in tiles of 2048 x 2048
MOST_WORK = 16  # times the limit: four channels in planes of their own, tiles that stick out of the image
UM_PER = {"": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def read_tiff(data: bytes, max_pixels: int) -> tuple[UInt8, int, tuple[float, float] | None]:
    """Decode the first page.

    Args:
        data: the file's bytes, beginning with a TIFF signature.
        max_pixels: width x height above which the page is refused unread.

    Returns:
        (H, W, 3) uint8 as stored, the orientation tag (1..8), and um per pixel (x, y) of the upright image or None.

    Raises:
        InvalidImage: if segments lie outside the file.
        UnsupportedMediaType: if the page holds what cannot be read as RGB.
        PayloadTooLarge: if there are more pixels than allowed.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if not isinstance(page, tifffile.TiffPage):
            raise InvalidImage("the TIFF has no page")
        _check_size(page, max_pixels)
        _check_kind(page)
        _check_channels(page)
        _check_segments(page, data)
        pixels = _rgb(page, page.asarray(maxworkers=1))
        return pixels, _orientation(page), _mpp(page)


def tiff_header(data: bytes, max_pixels: int) -> tuple[Size, tuple[float, float] | None]:
    """Size and um per pixel (x, y) or None of the first page, both of the upright image; reads no pixel.

    Raises:
        InvalidImage, PayloadTooLarge: as `read_tiff`.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if not isinstance(page, tifffile.TiffPage):
            raise InvalidImage("the TIFF has no page")
        _check_size(page, max_pixels)
        width, height = page.imagewidth, page.imagelength
        return Size(height, width) if _orientation(page) >= LYING else Size(width, height), _mpp(page)


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(ORIENTATION_TAG)
    return int(tag.value) if tag else 1


def _check_size(page: tifffile.TiffPage, max_pixels: int) -> None:
    if page.imagewidth < 1 or page.imagelength < 1:
        raise InvalidImage("the TIFF announces an image without pixels")
    segment, limit = _segment(page), max(max_pixels, SMALLEST_LIMIT)
    work = math.prod(page.chunked) * segment.width * segment.height
    if (
        page.imagewidth * page.imagelength > max_pixels
        or segment.width * segment.height > limit
        or (work > MOST_WORK * limit)
    ):
        raise PayloadTooLarge(
            f"the TIFF has {page.imagewidth} x {page.imagelength} pixels in pieces of "
            f"{segment.width} x {segment.height}; at most {max_pixels} pixels are accepted in one request"
        )


def _segment(page: tifffile.TiffPage) -> Size:
    """Size of one tile or strip."""
    if page.is_tiled:
        return Size(page.tilewidth, page.tilelength)
    return Size(page.imagewidth, min(page.rowsperstrip, page.imagelength))


def _check_kind(page: tifffile.TiffPage) -> None:
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 0
    allowed = {1, 2, 4, 8} if page.photometric == PHOTOMETRIC.PALETTE else {1, 8, 16}
    subsampled = page.photometric == PHOTOMETRIC.YCBCR and page.compression not in {COMPRESSION.JPEG, *JPEG_2000}
    for wrong, reason in (
        (
            page.compression not in READABLE,
            "its compression is not read (none, LZW, Deflate, PackBits, JPEG, JPEG 2000 are)",
        ),
        (page.photometric not in COLOURS or subsampled, "its colour space is not read (grey, palette, RGB are)"),
        (page.sampleformat != 1 or bits not in allowed, "its samples are not 1, 8 or 16 bit unsigned integers"),
        (page.samplesperpixel not in _samples(page), f"it has {page.samplesperpixel} channels"),
        (page.imagedepth != 1 or page.axes not in ("YX", "YXS", "SYX"), "it is a volume, not a plane"),
    ):
        if wrong:
            raise UnsupportedMediaType(f"the TIFF cannot be read as RGB: {reason}")


def _samples(page: tifffile.TiffPage) -> tuple[int, ...]:
    if page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        return (3, 4)
    return (1,) if page.photometric == PHOTOMETRIC.PALETTE else (1, 2)


def _check_channels(page: tifffile.TiffPage) -> None:
    channels = re.search(r'<(?:\w+:)?Pixels\b[^>]*\bSizeC="(\d{1,6})"', page.description)
    if channels and page.samplesperpixel == 1 and int(channels[1]) > 1:
        raise UnsupportedMediaType(f"the OME-TIFF keeps its {channels[1]} channels in separate planes; send RGB")


def _check_segments(page: tifffile.TiffPage, data: bytes) -> None:
    places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(places) != math.prod(page.chunked):
        raise InvalidImage("the TIFF is broken: segments are missing")
    if any(offset < 1 or count < 1 or offset + count > len(data) for offset, count in places):
        raise InvalidImage("the TIFF is truncated")
    if page.compression == COMPRESSION.JPEG or page.compression in JPEG_2000:
        segment, size_of = _segment(page), jpeg_size if page.compression == COMPRESSION.JPEG else jpeg_2000_size
        for offset, count in places:
            size = size_of(data[offset : offset + count])
            if size.width > segment.width or size.height > segment.height:
                raise InvalidImage("the TIFF is broken: a JPEG segment is larger than its place")


def _rgb(page: tifffile.TiffPage, stored: npt.NDArray[Any]) -> UInt8:
    if page.axes == "SYX":
        stored = stored.transpose(1, 2, 0)
    if page.photometric == PHOTOMETRIC.PALETTE:
        if page.colormap is None:
            raise InvalidImage("the TIFF is broken: its palette is missing")
        return np.ascontiguousarray(eight_bits(page.colormap)[:, stored].transpose(1, 2, 0))
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        stored = np.array(stored)
        grey = stored if stored.ndim == 2 else stored[..., 0]  # what lies beside it is alpha
        np.invert(grey, out=grey)
    kind = page.extrasamples[0] if page.extrasamples else 0
    return rgb(stored, ALPHA.get(kind, "ignored"))


def _mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """(x, y) in um of the upright image, if the description states both and they make sense."""
    stored = _stated(page.description)
    return stored[::-1] if stored and _orientation(page) >= LYING else stored


def _stated(description: str) -> tuple[float, float] | None:
    if description.startswith("Aperio"):
        found = re.search(r"\|\s*MPP\s*=\s*([0-9.]{1,20})", description)
        sizes = [found[1], found[1]] if found else []
    else:
        pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
        sizes = [size for axis in "XY" if (size := _physical(pixels[0] if pixels else "", axis))]
    try:
        x, y = (float(size) for size in sizes)
    except ValueError:
        return None
    return (x, y) if all(math.isfinite(v) and v > 0 for v in (x, y)) else None


def _physical(pixels: str, axis: str) -> str:
    size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]{{1,30}})"', pixels)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]{{0,12}})"', pixels)
    scale = UM_PER.get(unit[1] if unit else "")
    try:
        return str(float(size[1]) * scale) if size and scale else ""
    except ValueError:
        return ""
