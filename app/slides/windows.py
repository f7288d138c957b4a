"""Which patches of a slide are analysed together, and which nuclei does each such window answer for?

A slide is cut into patches once, as a whole, exactly as an image of its size would be; a window is a block of them.
So the network sees each patch once, whatever the size of the windows, and inside a window's core the maps are those of
the slide analysed in one piece. Beyond the core, a window knows what its outer patches saw there: the model's margin,
wide enough for the far side of a nucleus whose centre lies inside. The patch beyond may see that side otherwise, so a
few nuclei at seams depend on where windows meet (2 in 1000 of a real slide). Windows meet where their patches meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite
from typing import NamedTuple

from app.nuclei.errors import InvalidParameter
from app.nuclei.tiling import Span, Tiling
from app.slides.places import Box, Place
from app.slides.regions import Grid


class Area(NamedTuple):
    """A box of whole pixels of a grid; the far side is exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.x1 - self.x0, self.y1 - self.y0

    def within(self, other: Area) -> Area:
        """What both share."""
        return Area(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def grown(self, by: int) -> Area:
        """With `by` more pixels on each side."""
        return Area(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)


@dataclass(frozen=True, slots=True)
class Window:
    """A block of patches.

    Attributes:
        rows, cols: spans of the slide's tiling.
        patch: side of a patch.
        core: what the window answers for.
        seen: the core and its margin: what is separated and described.
    """

    rows: tuple[Span, ...]
    cols: tuple[Span, ...]
    patch: int
    core: Area
    seen: Area

    @property
    def read(self) -> Area:
        """What the patches cover; it may stick out of a slide that is smaller than a patch."""
        return Area(
            self.cols[0].start, self.rows[0].start, self.cols[-1].start + self.patch, self.rows[-1].start + self.patch
        )

    def plan(self, slide: Area) -> Tiling:
        """How the window's own pixels, `read` as far as the slide goes, are cut and laid together."""
        read = self.read.within(slide)
        width, height = read.size
        return Tiling(height, width, self.patch, _moved(self.rows, read.y0, height), _moved(self.cols, read.x0, width))

    def patches(self) -> list[Area]:
        """What each patch answers for, in the order of the plan."""
        return [Area(col.low, row.low, col.high, row.high) for row in self.rows for col in self.cols]

    def place(self, grid: Grid, size: tuple[int, int]) -> Place:
        """Where the window lies on a slide of this width and height, in level-0 pixels."""
        seen, core = (on_slide(each, grid, size) for each in (self.seen, self.core))
        return Place(seen.x0, seen.y0, seen.x1 - seen.x0, seen.y1 - seen.y0, core)


def on_slide(area: Area, grid: Grid, size: tuple[int, int]) -> Box:
    """An area of a grid in level-0 pixels of a slide; the grid's far border, wherever it fell, is the slide's."""
    x1 = size[0] if area.x1 == grid.width else area.x1 * grid.scale_x
    y1 = size[1] if area.y1 == grid.height else area.y1 * grid.scale_y
    return Box(area.x0 * grid.scale_x, area.y0 * grid.scale_y, x1, y1)


def on_grid(region: Box, grid: Grid) -> Area:
    """The pixels of a grid that a region of level 0 touches.

    Raises:
        InvalidParameter: if it touches none.
    """
    x0, y0 = max(0, floor(region.x0 / grid.scale_x)), max(0, floor(region.y0 / grid.scale_y))
    x1, y1 = min(grid.width, ceil(region.x1 / grid.scale_x)), min(grid.height, ceil(region.y1 / grid.scale_y))
    if x0 >= x1 or y0 >= y1:
        raise InvalidParameter("region", "the region holds no pixel of the slide")
    return Area(x0, y0, x1, y1)


def check_region(region: Box, width: int, height: int) -> None:
    """Refuse a region that holds no pixel of a slide of this size.

    Raises:
        InvalidParameter: then.
    """
    if not (all(map(isfinite, region)) and region.x0 < region.x1 and region.y0 < region.y1):
        raise InvalidParameter("region", "a region is x0, y0, x1, y1 in level-0 pixels, the far side greater")
    if not (region.x0 < width and region.y0 < height and region.x1 > 0 and region.y1 > 0):
        raise InvalidParameter("region", "the region holds no pixel of the slide")


def windows(tiling: Tiling, side: int, margin: int, region: Area) -> Iterator[Window]:
    """The windows that answer for a region, row by row.

    Args:
        tiling: of the whole slide at the model's scale.
        side: pixels that a window's core should have, about.
        margin: pixels around a core in which its nuclei may still lie, at most that of the tiling.
        region: what is wanted; cores end at its border.
    """
    slide = Area(0, 0, tiling.width, tiling.height)
    for rows in _blocks(tiling.rows, side, region.y0, region.y1):
        for cols in _blocks(tiling.cols, side, region.x0, region.x1):
            whole = Area(cols[0].low, rows[0].low, cols[-1].high, rows[-1].high)
            core = whole.within(region)
            window = Window(rows, cols, tiling.patch, core, core)
            seen = core.grown(margin).within(window.read).within(slide)
            yield Window(rows, cols, tiling.patch, core, seen)


def _blocks(spans: Sequence[Span], side: int, low: int, high: int) -> Iterator[tuple[Span, ...]]:
    """Spans that meet low..high, in blocks that begin at the same places whatever is wanted of the slide."""
    count = min(len(spans), max(1, round((spans[-1].high - spans[0].low) / side)))
    borders = [i * len(spans) // count for i in range(count + 1)]
    for first, last in pairwise(borders):
        block = tuple(span for span in spans[first:last] if span.low < high and span.high > low)
        if block:
            yield block


def _moved(spans: Sequence[Span], by: int, length: int) -> tuple[Span, ...]:
    """Spans counted from the window's corner; the outer ones are believed to the edge, as nobody else speaks there."""
    lows = [0, *(span.low - by for span in spans[1:])]
    highs = [*(span.high - by for span in spans[:-1]), length]
    return tuple(Span(span.start - by, low, high) for span, low, high in zip(spans, lows, highs, strict=True))
