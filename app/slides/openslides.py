"""How does OpenSlide give exact pixels of any level?

OpenSlide addresses every level by level-0 positions and shifts by fractions of a pixel where those do not fall on whole
ones. Coarser levels are therefore read in blocks that always begin at the same places: a region is then the same pixels
whichever way it is cut, and never shifted by more than half a level-0 pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import openslide

from app.nuclei.errors import InvalidImage
from app.nuclei.types import UInt8
from app.slides.dicoms import mislabelled, to_rgb
from app.slides.sources import Level, check_inside, credible_mpp, on_white, pyramid

CACHE_BYTES = 32 * 2**20  # decoded tiles that OpenSlide keeps per slide
BLOCK = 512


def detect(path: Path) -> str | None:
    """OpenSlide's name for the format of a file, None if it takes it for none."""
    return openslide.OpenSlide.detect_format(path)


class OpenSlideSource:
    """A slide read by OpenSlide; see `Source`."""

    def __init__(self, slide: openslide.OpenSlide, vendor: str, ycbcr: bool = False) -> None:
        slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        self.vendor = vendor
        self.levels: tuple[Level, ...] = pyramid(list(slide.level_dimensions))
        self.mpp = credible_mpp(slide.properties.get("openslide.mpp-x"), slide.properties.get("openslide.mpp-y"))
        self._slide, self._ycbcr = slide, ycbcr
        self._downsamples = slide.level_downsamples

    @classmethod
    def open(cls, path: Path, vendor: str) -> Self:
        """Open a file that `detect` knows; damage raises OpenSlide's own errors."""
        slide = openslide.OpenSlide(path)
        try:
            return cls(slide, vendor, vendor == "dicom" and mislabelled(path))
        except BaseException:
            slide.close()
            raise

    def read(self, level: int, x: int, y: int, width: int, height: int) -> UInt8:
        """See `Source.read`."""
        check_inside(self.levels[level], x, y, width, height)
        if level == 0:
            return self._pixels(0, (x, y), (width, height))
        result = np.empty((height, width, 3), np.uint8)
        for top in range(y - y % BLOCK, y + height, BLOCK):
            for left in range(x - x % BLOCK, x + width, BLOCK):
                block = self._block(level, left, top)
                rows, cols = slice(max(0, y - top), y + height - top), slice(max(0, x - left), x + width - left)
                part = block[rows, cols]
                at_row, at_col = max(0, top - y), max(0, left - x)
                result[at_row : at_row + part.shape[0], at_col : at_col + part.shape[1]] = part
        return result

    def _block(self, level: int, left: int, top: int) -> UInt8:
        width, height = self.levels[level].width, self.levels[level].height
        scale = self._downsamples[level]  # OpenSlide's own idea of the scale, as it turns the position back with it
        place = round(left * scale), round(top * scale)
        return self._pixels(level, place, (min(BLOCK, width - left), min(BLOCK, height - top)))

    def _pixels(self, level: int, place: tuple[int, int], size: tuple[int, int]) -> UInt8:
        try:
            rgba = np.array(self._slide.read_region(place, level, size), np.uint8)
        except openslide.OpenSlideError as error:
            raise InvalidImage("the slide is damaged: pixels of it cannot be decoded") from error
        if self._ycbcr:
            rgba[..., :3] = to_rgb(rgba[..., :3])
        return on_white(rgba)

    def close(self) -> None:
        """Free the handle; a second call does nothing."""
        self._slide.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
