"""How is a TIFF of any size read region by region, and what must hold before it is trusted?

Only the strips or tiles that a region needs are read from the file and decoded; a few bytes can announce gigabytes, so
sizes, offsets and kinds are checked before the first of them is. Read: 8 or 16 bits, grey, palette, RGB or YCbCr;
plain, LZW, Deflate, PackBits, JPEG or JPEG 2000. Of a file with several images the first that is no label, macro,
overview or thumbnail counts, with its pyramid (SubIFDs or reduced pages). Sources: TIFF 6.0; OME schema 2016-06.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import threading
from collections import OrderedDict
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from app.nuclei.errors import InvalidImage, PayloadTooLarge, UnsupportedMediaType
from app.nuclei.types import UInt8
from app.slides.sources import Level, check_inside, credible_mpp, on_white, pyramid

MAX_SEGMENT = 2**25  # pixels of one strip or tile: 100 MB of RGB while it is decoded
MAX_PAGES = 4096
CACHE_BYTES = 64 * 2**20  # decoded strips and tiles kept per slide, as neighbouring windows share them
READABLE = {
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.DEFLATE,
    COMPRESSION.ADOBE_DEFLATE,
    COMPRESSION.PACKBITS,
    COMPRESSION.JPEG,
    COMPRESSION.JPEG2000,
    COMPRESSION.APERIO_JP2000_YCBC,
    COMPRESSION.APERIO_JP2000_RGB,
}
WITH_OWN_SIZE = {c for c in READABLE if "JP" in c.name}
COLOURS = {PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE, PHOTOMETRIC.YCBCR}
NOT_TISSUE = re.compile(r"\b(label|macro|overview|thumbnail)\b", re.IGNORECASE)
UM_PER = {"": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def is_ome(path: Path) -> bool:
    """Whether a TIFF describes itself by OME-XML."""
    with tifffile.TiffFile(path) as file:
        return bool(file.is_ome)


def check_structure(path: Path) -> None:
    """Refuse a TIFF whose tags announce what no reader should try; only tags are read, no pixel.

    NDPI keeps a level as one huge JPEG, which OpenSlide enters by its restart markers: its pieces may have any size.

    Raises:
        PayloadTooLarge: if a tile is too large to be decoded.
        InvalidImage: if it has no page or more than a slide can have, or if parts of it lie behind its end.
    """
    with tifffile.TiffFile(path) as file:
        pages = list(islice(file.pages, MAX_PAGES + 1))
        if not pages or len(pages) > MAX_PAGES:
            raise InvalidImage(f"the TIFF is broken: it has no page, or more than {MAX_PAGES}")
        if file.is_ndpi:
            return
        for page in pages:
            if isinstance(page, tifffile.TiffPage):
                _check_places(page, file.filehandle.size)
                if page.is_tiled:
                    _check_segment_size(page)
        if _next_page(file, pages[-1].offset):
            raise InvalidImage("the TIFF is truncated: pages of it lie behind its end")


def _next_page(file: tifffile.TiffFile, offset: int) -> int:
    """Where the directory after the one at `offset` lies; 0 if that is the last one."""
    handle, layout = file.filehandle, file.tiff
    handle.seek(offset)
    (entries,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(offset + layout.tagnosize + entries * layout.tagsize)
    return int(struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))[0])


def _check_segment_size(page: tifffile.TiffPage) -> None:
    width, height = _segment(page)
    if not 0 < width * height <= MAX_SEGMENT:
        raise PayloadTooLarge(
            f"the TIFF keeps its pixels in pieces of {width} x {height}; at most {MAX_SEGMENT} pixels a piece are"
            " accepted: save it as a tiled TIFF"
        )


def _segment(page: tifffile.TiffPage) -> tuple[int, int]:
    """(width, height) of one tile or strip."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


class TiffSource:
    """A TIFF read by tifffile; see `Source`."""

    def __init__(self, file: tifffile.TiffFile, size_bytes: int) -> None:
        series = _tissue(file)
        self.vendor = "ome-tiff" if file.is_ome else "tiff"
        pages = [_checked(level.keyframe, size_bytes) for level in series.levels]
        _check_planes(series, pages[0])
        self.levels: tuple[Level, ...] = pyramid([(page.imagewidth, page.imagelength) for page in pages])
        self.mpp = _ome_mpp(file.ome_metadata or "", file.series.index(series)) if file.is_ome else None
        self._file, self._pages = file, pages
        self._recent: OrderedDict[tuple[int, int], UInt8] = OrderedDict()
        self._lock = threading.Lock()
        self._handle = os.open(file.filehandle.path, os.O_RDONLY | os.O_CLOEXEC)  # for reads without a shared position

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the tags and check them.

        Raises:
            UnsupportedMediaType: if the image is of a kind that is not read.
            PayloadTooLarge: if a strip or tile is too large to be decoded.
            InvalidImage: if pixels lie outside the file.
        """
        file = tifffile.TiffFile(path)
        try:
            return cls(file, path.stat().st_size)
        except BaseException:
            file.close()
            raise

    def read(self, level: int, x: int, y: int, width: int, height: int) -> UInt8:
        """See `Source.read`."""
        check_inside(self.levels[level], x, y, width, height)
        page = self._pages[level]
        wide, high = _segment(page)
        across = math.ceil(page.imagewidth / wide)
        result = np.empty((height, width, 3), np.uint8)
        for row in range(y // high, math.ceil((y + height) / high)):
            for col in range(x // wide, math.ceil((x + width) / wide)):
                pixels = self._segment(level, row * across + col)
                top, left = row * high, col * wide
                part = pixels[max(0, y - top) : y + height - top, max(0, x - left) : x + width - left]
                at_row, at_col = max(0, top - y), max(0, left - x)
                result[at_row : at_row + part.shape[0], at_col : at_col + part.shape[1]] = part
        return result

    def _segment(self, level: int, index: int) -> UInt8:
        with self._lock:
            if (known := self._recent.get((level, index))) is not None:
                self._recent.move_to_end((level, index))
                return known
        pixels = self._decode(self._pages[level], index)
        with self._lock:
            self._recent[level, index] = pixels
            while len(self._recent) > 1 and sum(each.nbytes for each in self._recent.values()) > CACHE_BYTES:
                self._recent.popitem(last=False)
        return pixels

    def _decode(self, page: tifffile.TiffPage, index: int) -> UInt8:
        """(h, w, 3) of one segment; a tile that the writer left out (0 bytes) is white."""
        wide, high = _segment(page)
        length = page.databytecounts[index]
        if length == 0:
            return np.full((high, wide, 3), 255, np.uint8)
        data = os.pread(self._handle, length, page.dataoffsets[index])
        try:
            if len(data) != length:
                raise ValueError("the file ends inside the segment")
            if page.compression in WITH_OWN_SIZE:
                _check_announced(data, wide, high)
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
            return _rgb(page, np.asarray(decoded)[0])
        except Exception as error:  # codecs raise almost anything
            raise InvalidImage("the TIFF is damaged: pixels of it cannot be decoded") from error

    def close(self) -> None:
        """Free both handles; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _tissue(file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    for series in file.series:
        if not NOT_TISSUE.search(series.name or ""):
            return series
    raise UnsupportedMediaType("the TIFF holds no image of tissue")


def _check_planes(series: tifffile.TiffPageSeries, page: tifffile.TiffPage) -> None:
    planes = math.prod(size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YXS")
    if page.samplesperpixel == 1 and planes > 1:
        raise UnsupportedMediaType(
            f"the TIFF keeps its {planes} channels in separate planes: one plane, channels interleaved, is read"
        )


def _checked(page: tifffile.TiffPage | tifffile.TiffFrame, size_bytes: int) -> tifffile.TiffPage:
    if not isinstance(page, tifffile.TiffPage):
        raise InvalidImage("the TIFF is broken: a level of it has no page of its own")
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 0
    for wrong, reason in (
        (page.compression not in READABLE, "its compression (none, LZW, Deflate, PackBits, JPEG, JPEG 2000 are read)"),
        (page.photometric not in COLOURS, "its colour space (grey, palette, RGB are read)"),
        (page.sampleformat != 1 or bits not in {8, 16}, "its samples (8 or 16 bit unsigned integers are read)"),
        (
            page.planarconfig != 1 or page.imagedepth != 1,
            "its layout (one plane, channels interleaved, is read)",
        ),
        (page.samplesperpixel not in (1, 3, 4), f"its {page.samplesperpixel} channels (1, 3 or 4 are read)"),
    ):
        if wrong:
            raise UnsupportedMediaType(f"the TIFF cannot be read as RGB: {reason}")
    _check_segment_size(page)
    _check_places(page, size_bytes)
    across, down = _segment(page)
    if len(page.dataoffsets) != math.ceil(page.imagewidth / across) * math.ceil(page.imagelength / down):
        raise InvalidImage("the TIFF is broken: strips or tiles are missing")
    return page


def _check_places(page: tifffile.TiffPage, size_bytes: int) -> None:
    offsets, counts = np.array(page.dataoffsets, np.float64), np.array(page.databytecounts, np.float64)
    if not len(offsets) == len(counts) > 0:
        raise InvalidImage("the TIFF is broken: strips or tiles are missing")
    if ((counts > 0) & ((offsets < 1) | (offsets + counts > size_bytes))).any():
        raise InvalidImage("the TIFF is truncated: strips or tiles of it lie behind its end")


def _check_announced(data: bytes, width: int, height: int) -> None:
    """A JPEG inside of a tile may announce any size, and is decoded at it."""
    with Image.open(io.BytesIO(data), formats=("jpeg", "jpeg2000")) as image:
        if image.width > width or image.height > height:
            raise InvalidImage("a JPEG is larger than its place")


def _rgb(page: tifffile.TiffPage, stored: npt.NDArray[Any]) -> UInt8:
    """(h, w, C) as stored to (h, w, 3): 16 bits by the high byte, grey repeated, transparency over white."""
    if page.photometric == PHOTOMETRIC.PALETTE:
        if page.colormap is None:
            raise InvalidImage("the palette is missing")
        return np.ascontiguousarray((page.colormap >> 8).astype(np.uint8)[:, stored[..., 0]].transpose(1, 2, 0))
    pixels: UInt8 = (stored >> 8 if stored.dtype.itemsize == 2 else stored).astype(np.uint8, copy=False)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        pixels = np.invert(pixels)
    if pixels.shape[2] == 4 and page.extrasamples == (2,):
        return on_white(pixels)
    return pixels[..., :3] if pixels.shape[2] > 1 else np.repeat(pixels, 3, axis=2)


def _ome_mpp(xml: str, image: int) -> tuple[float, float] | None:
    """um per pixel of the `image`-th image, if `PhysicalSizeX` and `PhysicalSizeY` make sense."""
    found = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    pixels = found[image] if image < len(found) else ""
    return credible_mpp(_physical(pixels, "X"), _physical(pixels, "Y"))


def _physical(pixels: str, axis: str) -> float:
    size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]{{1,30}})"', pixels)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]{{0,12}})"', pixels)
    scale = UM_PER.get(unit[1] if unit else "")
    return float(size[1]) * scale if size and scale else math.nan
