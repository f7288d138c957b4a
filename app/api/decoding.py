"""How do uploaded bytes become upright RGB pixels, under limits, or an exact reason why not?

The header is read before any pixel is allocated, and truncated files are refused (image libraries return such files
half black or grey). What is not 8-bit RGB is brought there by fixed rules:

    EXIF and TIFF orientation   applied: the result is upright
    greyscale, 1 bit, palette   expanded to RGB
    16 bits a channel           the high byte, value // 256
    transparency                laid over white, as a slide's empty glass
    CMYK and YCCK JPEG          converted by Pillow without a colour profile
    several pages or frames     the first

libpng (by imagecodecs) and Pillow's libjpeg give OpenCV's pixels, as fast on the tiles that are sent, and report
missing data, which OpenCV does not. No HTTP in here: the command line uses the same function.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image

from app.api.colour import rgb
from app.api.probing import JPEG_MAGIC, PNG_MAGIC, Size, check_jpeg_complete, detect, jpeg_size, png_exif, png_size
from app.api.tiff import read_tiff, tiff_header
from app.nuclei.errors import InvalidImage, PayloadTooLarge, Refusal
from app.nuclei.types import UInt8

EXIF_ORIENTATION = 0x0112
NEAR = 2048


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as the analysis wants it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        mpp: um per pixel along x and y if the file's own metadata states them (OME-TIFF, Aperio), else None.
        sha256: of the bytes received, hexadecimal.
    """

    pixels: UInt8
    mpp: tuple[float, float] | None
    sha256: str


def decode(data: bytes, max_pixels: int) -> DecodedImage:
    """Decode a PNG, JPEG or TIFF.

    Args:
        data: the file's bytes.
        max_pixels: width x height above which the image is refused unread.

    Raises:
        InvalidImage: if the bytes are empty, truncated or broken.
        UnsupportedMediaType: if they are of another format or hold pixels that are no RGB.
        PayloadTooLarge: if the header announces more pixels than allowed.
    """
    kind = detect(data)
    mpp = None
    try:
        if kind == "tiff":
            pixels, orientation, mpp = read_tiff(data, max_pixels)
        else:
            pixels, orientation = (_read_png if kind == "png" else _read_jpeg)(data, max_pixels)
    except Refusal:
        raise
    except Exception as error:  # a broken file makes the libraries raise almost anything
        raise InvalidImage(f"the {kind.upper()} cannot be decoded: it is truncated or broken") from error
    return DecodedImage(upright(pixels, orientation), mpp, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Announced:
    """What an image's header says: um per pixel as `DecodedImage` has them, and a size: of a PNG or JPEG as stored."""

    size: Size
    mpp: tuple[float, float] | None


def announced(data: bytes, max_pixels: int) -> Announced:
    """Read the header of a PNG, JPEG or TIFF.

    Raises:
        InvalidImage, UnsupportedMediaType, PayloadTooLarge: as `decode`, as far as the header tells.
    """
    kind, mpp = detect(data), None
    try:
        if kind == "tiff":
            size, mpp = tiff_header(data, max_pixels)
        else:
            size = (png_size if kind == "png" else jpeg_size)(data)
    except Refusal:
        raise
    except Exception as error:  # see `decode`
        raise InvalidImage(f"the {kind.upper()} cannot be decoded: it is truncated or broken") from error
    check_pixels(size, max_pixels)
    return Announced(size, mpp)


def header_is_near(data: bytes) -> bool:
    """Whether `announced` is done with a PNG or JPEG sooner than a thread could begin; finding out is done as soon."""
    if data[:8] == PNG_MAGIC:
        return True
    if data[:3] != JPEG_MAGIC:
        return False
    try:
        jpeg_size(data[:NEAR])
    except InvalidImage:
        return False
    return True


def check_pixels(size: Size, max_pixels: int, what: str = "the image") -> None:
    """Refuse an image with more pixels than allowed.

    Raises:
        PayloadTooLarge: naming both figures.
    """
    if size.width * size.height > max_pixels:
        raise PayloadTooLarge(
            f"{what} has {size.width} x {size.height} pixels; at most {max_pixels} are accepted in one request"
        )


def upright(pixels: UInt8, orientation: int) -> UInt8:
    """Turn pixels as EXIF orientation says (1..8, TIFF 6.0 tag 274); other values leave them as they are.

    Args:
        pixels: (H, W, 3).
        orientation: where row 0 and column 0 of the stored image lie in the upright one.

    Returns:
        (H, W, 3), or (W, H, 3) for 5..8; contiguous and writable.
    """
    if 5 <= orientation <= 8:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.require(pixels[::rows, ::columns], requirements=["C", "W"])


def _read_png(data: bytes, max_pixels: int) -> tuple[UInt8, int]:
    check_pixels(png_size(data), max_pixels)
    block = png_exif(data)

    def exif() -> Image.Exif:
        found = Image.Exif()
        found.load(block)
        return found

    return rgb(imagecodecs.png_decode(data)), _orientation(exif)


def _read_jpeg(data: bytes, max_pixels: int) -> tuple[UInt8, int]:
    size = jpeg_size(data)
    check_pixels(size, max_pixels)
    check_jpeg_complete(data)
    with Image.open(io.BytesIO(data), formats=("jpeg",)) as image:
        if image.size != size:
            raise InvalidImage("the JPEG announces two different sizes")
        image.load()
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), _orientation(image.getexif)


def _orientation(exif: Callable[[], Image.Exif]) -> int:
    try:
        return int(exif().get(EXIF_ORIENTATION, 1))
    except Exception:  # metadata that cannot be read is no reason to refuse good pixels
        return 1
