"""Which tiles is a slide cut into for a viewer, at which levels, and where do they lie?

Deep Zoom (DZI): tiles of 256 pixels without overlap; the highest level is the slide itself, each one below has half
its size, rounded up, down to one pixel. Picture and overlay share this geometry, so a viewer can lay one on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.nuclei.errors import NotFound
from app.slides.places import Box

TILE = 256


@dataclass(frozen=True, slots=True)
class PyramidTile:
    """A tile of one level.

    Attributes:
        level: which one.
        reduction: level-0 pixels per pixel of it, a power of two.
        x, y, width, height: of the tile, in pixels of its level.
    """

    level: int
    reduction: int
    x: int
    y: int
    width: int
    height: int

    @property
    def box(self) -> Box:
        """The tile on the slide; the last ones of a row or column may reach beyond its border by part of a pixel."""
        right, bottom = self.x + self.width, self.y + self.height
        x0, y0, x1, y1 = (self.reduction * side for side in (self.x, self.y, right, bottom))
        return Box(x0, y0, x1, y1)


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The levels of a slide.

    Attributes:
        width, height: of level 0 of the slide, at least 1.
    """

    width: int
    height: int

    @property
    def top(self) -> int:
        """The highest level, which is the slide itself: ceil(log2(longer side))."""
        return (max(self.width, self.height) - 1).bit_length()

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a level, 0 to `top`."""
        reduction = 2 ** (self.top - level)
        return -(-self.width // reduction), -(-self.height // reduction)

    def tile(self, level: int, col: int, row: int) -> PyramidTile:
        """One tile.

        Raises:
            NotFound: if there is none at this place.
        """
        if not 0 <= level <= self.top:
            raise NotFound(f"there is no level {level}; there are 0 to {self.top}")
        width, height = self.size(level)
        x, y = col * TILE, row * TILE
        if not (0 <= x < width and 0 <= y < height):
            raise NotFound(f"level {level} has {-(-width // TILE)} x {-(-height // TILE)} tiles; this is none of them")
        return PyramidTile(level, 2 ** (self.top - level), x, y, min(TILE, width - x), min(TILE, height - y))

    def descriptor(self, kind: str) -> bytes:
        """The .dzi file.

        Args:
            kind: of the tiles, "png" or "jpg".
        """
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="{kind}" Overlap="0" TileSize="{TILE}">'
            f'<Size Width="{self.width}" Height="{self.height}"/></Image>\n'
        ).encode()
