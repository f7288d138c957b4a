"""Where does a tile lie on its slide, and which part of it does it answer for?

All figures are level-0 pixels, (x, y), fractions allowed: a window that was analysed at another scale begins where its
first pixel begins on the slide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

from app.nuclei.errors import InvalidParameter


class Box(NamedTuple):
    """x0, y0, x1, y1; the far side is exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    def grown(self, by: float) -> Box:
        """The box with `by` more pixels on each side."""
        return Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)

    def joined(self, other: Box) -> Box:
        """The smallest box that holds both."""
        low, high = map(min, self[:2], other[:2]), map(max, self[2:], other[2:])
        return Box(*low, *high)

    def meets(self, other: Box) -> bool:
        """Whether the two share a pixel or an edge."""
        return self.x0 <= other.x1 and other.x0 <= self.x1 and self.y0 <= other.y1 and other.y0 <= self.y1

    def holds(self, other: Box) -> bool:
        """Whether the other lies wholly inside."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and other.x1 <= self.x1 and other.y1 <= self.y1


def check_corner(x: float, y: float, margin: float, slide: tuple[int, int]) -> None:
    """Refuse what no tile of a slide can have, before its size is known.

    Raises:
        InvalidParameter: naming what is wrong.
    """
    for name, value, length in (("x", x, slide[0]), ("y", y, slide[1])):
        if not 0 <= value < length:  # also NaN
            raise InvalidParameter(name, f"{name} lies inside the slide, from 0 to less than {length}")
    if not 0 <= margin < math.inf:
        raise InvalidParameter("margin", "a margin is a number of pixels, 0 or more")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a tile is to lie: its corner in level-0 pixels, and how much of it is context."""

    x: float
    y: float
    margin: float


@dataclass(frozen=True, slots=True)
class Place:
    """A tile on its slide.

    Attributes:
        x, y: its top-left corner.
        width, height: its size.
        core: the part whose nuclei it owns, by centroid; the rest is margin, analysed for context only.

    Raises:
        InvalidParameter: if the tile has no pixels, or the core is empty or sticks out of it.
    """

    x: float
    y: float
    width: float
    height: float
    core: Box

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, (*self.core, self.x, self.y))) and self.width > 0 and self.height > 0):
            raise InvalidParameter("x", "a tile lies at a finite place and has pixels")
        if not (self.box.holds(self.core) and self.core.x0 < self.core.x1 and self.core.y0 < self.core.y1):
            raise InvalidParameter("margin", "the margin leaves nothing of the tile")

    @property
    def box(self) -> Box:
        """The whole tile."""
        return Box(self.x, self.y, self.x + self.width, self.y + self.height)

    @classmethod
    def inside(cls, x: float, y: float, width: float, height: float, margin: float, slide: tuple[int, int]) -> Self:
        """A tile with the same margin on each side, except where it reaches the slide's border: nothing lies beyond.

        Args:
            x, y, width, height: the tile.
            margin: pixels of context on each side; 0 if there is none.
            slide: width and height of the slide.

        Raises:
            InvalidParameter: if the tile is not inside the slide, or the margin leaves nothing of it.
        """
        if not (min(x, y) >= 0 and x + width <= slide[0] and y + height <= slide[1]):
            raise InvalidParameter("x", f"{width}x{height} at {x},{y} is not inside the slide of {slide[0]}x{slide[1]}")
        if not 0 <= margin < math.inf:
            raise InvalidParameter("margin", "a margin is a number of pixels, 0 or more")
        low = x if x == 0 else x + margin, y if y == 0 else y + margin
        right, bottom = x + width, y + height
        high = right if right == slide[0] else right - margin, bottom if bottom == slide[1] else bottom - margin
        return cls(x, y, width, height, Box(*low, *high))
