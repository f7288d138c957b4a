"""How is a PNG or JPEG too large for one tile request read as a slide?

Neither format can be entered in the middle, so the image is decoded once and kept while it is open: three bytes a
pixel, up to `MAX_PIXELS`. Larger ones are told to become tiled TIFFs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageOps

from app.nuclei.errors import PayloadTooLarge
from app.nuclei.types import UInt8
from app.slides.sources import Level, check_inside, on_white, pyramid

MAX_PIXELS = 89_478_485  # 256 MB of RGB; beyond it Pillow warns


class PlainSource:
    """A decoded PNG or JPEG, upright; see `Source`. It says nothing about its scale: dpi tags speak of printing."""

    def __init__(self, pixels: UInt8, kind: str) -> None:
        self.vendor = kind
        self.levels: tuple[Level, ...] = pyramid([(pixels.shape[1], pixels.shape[0])])
        self.mpp: tuple[float, float] | None = None
        self._pixels = pixels

    @classmethod
    def open(cls, path: Path) -> Self:
        """Decode the file.

        Raises:
            PayloadTooLarge: if it announces more than `MAX_PIXELS`.
        """
        with _announced(path) as image:
            kind = str(image.format).lower()
            upright = ImageOps.exif_transpose(_eight_bits(image))
            if upright.has_transparency_data:
                return cls(on_white(np.asarray(upright.convert("RGBA"))), kind)
            return cls(np.asarray(upright.convert("RGB")), kind)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> UInt8:
        """See `Source.read`."""
        check_inside(self.levels[level], x, y, width, height)
        return np.ascontiguousarray(self._pixels[y : y + height, x : x + width])

    def close(self) -> None:
        """Let the pixels go."""
        self._pixels = np.empty((0, 0, 3), np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _announced(path: Path) -> Image.Image:
    """The image, no pixel of it decoded yet; `PayloadTooLarge` if it is too large for that."""
    too_large = (
        f"a PNG or JPEG is decoded as a whole; at most {MAX_PIXELS} pixels are accepted: save it as a tiled TIFF"
    )
    try:
        image = Image.open(path, formats=("png", "jpeg"))
    except (
        Image.DecompressionBombWarning,
        Image.DecompressionBombError,
    ):  # beyond twice the limit Pillow does not even say how large it is
        raise PayloadTooLarge(too_large) from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise PayloadTooLarge(too_large)
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16 bits where the high byte is wanted."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
