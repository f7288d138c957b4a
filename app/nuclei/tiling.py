"""How is an image cut into patches that a network takes, and laid together again?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import numpy as np

from app.nuclei.types import Ballot, HoverMaps, UInt8

Blank = Callable[[int, int, int], HoverMaps]


class Span(NamedTuple):
    """One patch along one axis: it begins at `start`; its trusted part is [low, high), in pixels of the image."""

    start: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Tiling:
    """Patches of one size that cover an image, and which part of each is believed.

    Attributes:
        height, width: of the image.
        patch: side of a patch.
        rows, cols: spans down and across; every patch is one of `rows` with one of `cols`, row by row.
    """

    height: int
    width: int
    patch: int
    rows: tuple[Span, ...]
    cols: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def cut(self, image: UInt8) -> Iterator[UInt8]:
        """The patches in order, each (P, P, C); an image smaller than a patch is mirrored beyond its edge.

        Raises:
            ValueError: if the image is not of the size that was planned for.
        """
        if image.shape[:2] != (self.height, self.width):
            raise ValueError(f"planned for {self.height}x{self.width}, got {image.shape[0]}x{image.shape[1]}")
        missing = [(0, max(0, self.patch - n)) for n in image.shape[:2]]
        if any(after for _, after in missing):
            image = np.pad(image, [*missing, (0, 0)], mode="reflect")
        for row in self.rows:
            for col in self.cols:
                yield image[row.start : row.start + self.patch, col.start : col.start + self.patch]

    def stitch(self, patches: Sequence[HoverMaps]) -> HoverMaps:
        """Lay the trusted part of each patch's maps where it was cut.

        Args:
            patches: maps of (P, P), in the order of `cut`.

        Returns:
            HoverMaps of (H, W), every pixel covered once.

        Raises:
            ValueError: if the number of patches is not the tiling's.
        """
        mosaic = Mosaic(self)
        for number, maps in enumerate(patches):
            mosaic.lay(number, maps)
        return mosaic.maps


class Mosaic:
    """The maps of an image in the making: what was laid is copied, so that the patches' own maps need not be kept."""

    def __init__(self, plan: Tiling, blank: Blank | None = None) -> None:
        """Nothing laid yet.

        Args:
            plan: where the patches were cut.
            blank: makes the maps (height, width, channels) to be filled; fresh arrays if None.
        """
        self._plan = plan
        self._blank = blank
        self._whole: HoverMaps | None = None
        self._ballot: Ballot | None = None
        self._laid = 0

    def lay(self, number: int, maps: HoverMaps) -> None:
        """Add the maps (P, P) of a patch, by its number in the order of `Tiling.cut`; each once."""
        plan = self._plan
        self._laid += 1
        if number >= len(plan):
            return
        row, col = plan.rows[number // len(plan.cols)], plan.cols[number % len(plan.cols)]
        inside = np.s_[row.low - row.start : row.high - row.start, col.low - col.start : col.high - col.start]
        part, place = maps[inside], np.s_[row.low : row.high, col.low : col.high]
        if part.ballot:
            if not self._ballot:  # where nobody looked there are no votes
                self._ballot = Ballot(np.zeros((plan.height, plan.width), np.uint8), part.ballot.runs)
            self._ballot.votes[place] = part.ballot.votes
        if len(plan) == 1 and self._blank is None:
            self._whole = replace(part, type_prob=part.type_prob.copy(), ballot=None)
            return
        self._whole = self._whole or (self._blank or blank)(plan.height, plan.width, maps.type_prob.shape[-1])
        for name in ("np_prob", "hv", "type_prob"):
            getattr(self._whole, name)[place] = getattr(part, name)

    @property
    def maps(self) -> HoverMaps:
        """HoverMaps of (H, W), every pixel covered once; `type_prob` is a copy, the others may be a patch's own.

        They have a ballot if any patch has one.

        Raises:
            ValueError: if the number of patches laid is not the plan's.
        """
        if self._laid != len(self._plan) or self._whole is None:
            raise ValueError(f"{self._laid} patches for a tiling of {len(self._plan)}")
        return replace(self._whole, ballot=self._ballot)


def blank(height: int, width: int, channels: int) -> HoverMaps:
    """Maps (H, W) of arbitrary content, to be filled.

    Args:
        height, width: H, W.
        channels: of the class probabilities.
    """
    return HoverMaps(*(np.empty((height, width, *last), np.float32) for last in ((), (2,), (channels,))))


def plan(height: int, width: int, patch_sizes: Sequence[int], margin: int) -> Tiling:
    """Choose the patches for an image.

    An image that fits a patch size is one patch of the smallest that it fits. A larger one is cut into the largest,
    with at least `margin` distrusted pixels on each inner side. Patches are spread evenly and stay inside the image
    wherever it is large enough, so that a network sees real tissue, not mirrored, at the border.

    Args:
        height, width: of the image, at least 1.
        patch_sizes: that the model takes.
        margin: pixels thrown away at each inner side of a patch.

    Raises:
        ValueError: if the image is empty, or the margin leaves nothing of a patch.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}x{width} has no pixels")
    if margin < 0 or 2 * margin >= min(patch_sizes):
        raise ValueError(f"a margin of {margin} leaves nothing of a patch of {min(patch_sizes)}")
    fitting = [size for size in sorted(patch_sizes) if max(height, width) <= size]
    patch = fitting[0] if fitting else max(patch_sizes)
    return Tiling(height, width, patch, _spans(height, patch, margin), _spans(width, patch, margin))


def _spans(length: int, patch: int, margin: int) -> tuple[Span, ...]:
    if length <= patch:
        return (Span(0, 0, length),)
    count = ceil((length - 2 * margin) / (patch - 2 * margin))
    starts = [round(i * (length - patch) / (count - 1)) for i in range(count)]
    # Neighbours meet in the middle of what both saw.
    seams = [(left + patch + right) // 2 for left, right in pairwise(starts)]
    return tuple(Span(s, low, high) for s, low, high in zip(starts, [0, *seams], [*seams, length], strict=True))
