"""What is a big image to the rest of the service: levels, a scale, and boxes of pixels, whatever made it."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, Self

import numpy as np

from app.nuclei.types import UInt8

PLAUSIBLE_MPP = (0.05, 10.0)
"""A file's um per pixel outside of this is a printing resolution or a slip (72 dpi would be 353): it counts as none."""


class Level(NamedTuple):
    """One resolution of a pyramid.

    Attributes:
        width, height: in its own pixels.
        scale_x, scale_y: level-0 pixels per pixel of this level, >= 1.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float


class Source(Protocol):
    """An opened big image; may be read by several threads.

    Attributes:
        vendor: format as OpenSlide names it, or "ome-tiff", "tiff", "png", "jpeg"; "dicom" is DICOM.
        levels: finest first; `levels[0]` is level 0 with scale 1.
        mpp: (x, y) um per pixel of level 0 as the file's own metadata says, None if it says nothing credible.
    """

    @property
    def vendor(self) -> str: ...
    @property
    def levels(self) -> tuple[Level, ...]: ...
    @property
    def mpp(self) -> tuple[float, float] | None: ...

    def read(self, level: int, x: int, y: int, width: int, height: int) -> UInt8:
        """Pixels of one level.

        Args:
            level: index into `levels`.
            x, y, width, height: a box inside that level, in its own pixels.

        Returns:
            (height, width, 3) uint8 RGB; what the scanner left out is white.

        Raises:
            ValueError: if the box is empty or sticks out.
            InvalidImage: if the pixels there are damaged.
        """
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...


def credible_mpp(x: object, y: object) -> tuple[float, float] | None:
    """(x, y) um per pixel if both are numbers that a microscope can give, else None."""
    try:
        pair = float(str(x)), float(str(y))
    except ValueError:
        return None
    low, high = PLAUSIBLE_MPP
    return pair if all(math.isfinite(value) and low <= value <= high for value in pair) else None


def pyramid(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their sizes (width, height), finest first.

    Scanners halve and cut the remainder off, so 4443 pixels become 2221 at a scale of exactly 2, not 2.0005: the
    quotient is taken as a whole number wherever that explains the size.
    """
    width, height = sizes[0]
    return tuple(Level(w, h, _whole(width, w), _whole(height, h)) for w, h in sizes)


def _whole(full: int, reduced: int) -> float:
    ratio = full / reduced
    nearest = round(ratio)
    return float(nearest) if reduced in (full // nearest, -(-full // nearest)) else ratio


def check_inside(level: Level, x: int, y: int, width: int, height: int) -> None:
    """Refuse a box that is empty or sticks out of a level.

    Raises:
        ValueError: naming both.
    """
    if not (width > 0 <= x and height > 0 <= y and x + width <= level.width and y + height <= level.height):
        raise ValueError(f"{width}x{height} at {x},{y} is not inside {level.width}x{level.height}")


def on_white(rgba: UInt8) -> UInt8:
    """(H, W, 4) with straight alpha laid over white, the colour of empty glass: (H, W, 3) uint8."""
    alpha = rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    opacity = alpha.astype(np.uint32)
    mixed = rgba[..., :3] * opacity + 255 * (255 - opacity)
    return ((mixed + 127) // 255).astype(np.uint8)
