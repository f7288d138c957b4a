"""What passes between the parts: images, maps, nuclei and a finished segmentation.

Inside, arrays are (row, col); whatever leaves the service is (x, y) in pixels of the caller's image, where the
origin is the top-left corner of the first pixel and pixel (row r, column c) covers [c, c+1] x [r, r+1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from app.nuclei.errors import InvalidParameter
from app.nuclei.taxonomy import CLASSES

UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Profile = Literal["fast", "accurate"]
MppSource = Literal["request", "file", "model-default"]
Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Ballot:
    """What several runs of networks say of the same pixels, a run being one member in one view.

    Attributes:
        votes: (..., H, W) uint8, how many runs take the pixel for nucleus.
        runs: how many there are.
    """

    votes: UInt8
    runs: int

    def __getitem__(self, index: int | slice | tuple[slice, ...]) -> Ballot:
        return Ballot(self.votes[index], self.runs)


@dataclass(frozen=True, slots=True)
class HoverMaps:
    """The three maps of a HoVer-Net shaped network, of one image or a batch, as probabilities.

    Attributes:
        np_prob: (..., H, W) float32, probability of nucleus, 0..1.
        hv: (..., H, W, 2) float32, offset from the nucleus centre, about -1..1; `[..., 0]` grows to the right,
            `[..., 1]` downward.
        type_prob: (..., H, W, C) float32, class probabilities, channel 0 background; sums to 1 over C.
        ballot: (..., H, W), what the runs say whose mean the maps are, see `app.nuclei.ballots`; None where one
            member saw one view.

    Raises:
        ValueError: if they differ in size.
    """

    np_prob: Float32
    hv: Float32
    type_prob: Float32
    ballot: Ballot | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        sizes = [self.np_prob.shape, self.hv.shape[:-1], self.type_prob.shape[:-1]]
        sizes += [] if self.ballot is None else [self.ballot.votes.shape]
        if len(set(sizes)) > 1 or self.hv.shape[-1] != 2:
            raise ValueError(
                f"maps of different size: np, hv, type (and ballot) are {sizes}, hv has {self.hv.shape[-1]} channels"
            )

    def __getitem__(self, index: int | slice | tuple[slice, ...]) -> HoverMaps:
        ballot = self.ballot and self.ballot[index]
        return HoverMaps(self.np_prob[index], self.hv[index], self.type_prob[index], ballot=ballot)

    def __len__(self) -> int:
        return len(self.np_prob)

    def furthest_from(self, other: HoverMaps) -> float:
        """Largest absolute difference in any map; infinite if the sizes differ, NaN if one is in a map."""
        return self._off(other, np.max)

    def mean_from(self, other: HoverMaps) -> float:
        """Mean absolute difference of the map that differs most by it; infinite or NaN as `furthest_from` is."""
        return self._off(other, np.mean)

    def _off(self, other: HoverMaps, how: Callable[[Any], Any]) -> float:
        if self.np_prob.shape != other.np_prob.shape or self.type_prob.shape != other.type_prob.shape:
            return float("inf")
        pairs = [(self.np_prob, other.np_prob), (self.hv, other.hv), (self.type_prob, other.type_prob)]
        # Not `max`, which passes over a NaN that is not the first.
        return float(np.max([how(np.abs(a - b)) for a, b in pairs if a.size] or [0.0]))


def combined(parts: Sequence[HoverMaps], how: Callable[[list[Any]], Any]) -> HoverMaps:
    """Several maps as one: each array is what `how`, such as `np.stack`, makes of those of the parts.

    All parts have ballots of as many runs, or none has one.
    """
    maps = (how([getattr(part, name) for part in parts]) for name in ("np_prob", "hv", "type_prob"))
    ballots = [part.ballot for part in parts if part.ballot]
    ballot = Ballot(how([one.votes for one in ballots]), ballots[0].runs) if ballots else None
    return HoverMaps(*maps, ballot=ballot)


class Engine(Protocol):
    """Patches in, maps out: a session on a device, a queue in front of one, or a fake."""

    def predict(self, patches: UInt8) -> HoverMaps:
        """Maps of each patch.

        Args:
            patches: (N, P, P, 3) uint8 RGB, P one of the sizes of the model's manifest.

        Returns:
            HoverMaps with leading dimensions (N, P, P).
        """
        ...


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed exterior rings of N nuclei, end to end in one array.

    Attributes:
        points: (M, 2) float64, (x, y), each ring closed (first = last) and counter-clockwise by number
            (shoelace sum > 0).
        offsets: (N + 1,) int64; ring i is `points[offsets[i]:offsets[i + 1]]`.
    """

    points: Float64
    offsets: Int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Float64:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.points[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[Float64]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, slots=True)
class Nuclei:
    """The nuclei of one image as columns of equal length N, in reading order, in the caller's pixels.

    Attributes:
        id: (N,) int32, 1..N, the numbers of the instance map.
        type: (N,) uint8, class by pixel vote, 1..C-1; 0 only if the model saw background alone there.
        type_prob: (N,) float32, calibrated probability of `type`, 0..1.
        class_probs: (N, C-1) float32, calibrated, without background, each row sums to 1.
        centroid: (N, 2) float64, (x, y) of the centre of mass.
        bbox: (N, 4) float64, x0, y0, x1, y1, the far side exclusive.
        area: (N,) float64, square pixels: counted pixels x scale.
        covariance: (N, 3) float64, xx, yy, xy of the area's second central moments (a pixel is a unit square,
            so 1/12 each is included), square pixels.
        rings: exterior rings, exact to the pixel edge.
    """

    id: Int32
    type: UInt8
    type_prob: Float32
    class_probs: Float32
    centroid: Float64
    bbox: Float64
    area: Float64
    covariance: Float64
    rings: Rings

    def __len__(self) -> int:
        return len(self.id)

    def axes(self, mpp_x: float = 1.0, mpp_y: float = 1.0) -> Float64:
        """(N, 2) major and minor axis of the ellipse of equal second moments, in pixels, or um where mpp is given."""
        xx, yy, xy = self.covariance.T * np.array([[mpp_x**2], [mpp_y**2], [mpp_x * mpp_y]])
        middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        return np.stack([4 * np.sqrt(middle + spread), 4 * np.sqrt(np.maximum(middle - spread, 0))], axis=1)

    def mean_diameter(self, mpp_x: float = 1.0, mpp_y: float = 1.0) -> Float64:
        """(N,) mean of major and minor axis, in pixels, or in um where mpp is given."""
        mean: Float64 = self.axes(mpp_x, mpp_y).mean(axis=1)
        return mean


@dataclass(frozen=True, slots=True)
class Mpp:
    """Microns per pixel of an image, and who said so.

    Attributes:
        x, y: um per pixel along a row and down a column; finite, > 0.
        source: where the figure came from.
        conflict: the file's own metadata said otherwise.

    Raises:
        InvalidParameter: if x or y is not a finite positive number.
    """

    x: float
    y: float
    source: MppSource = "request"
    conflict: bool = False

    def __post_init__(self) -> None:
        if not all(np.isfinite(v) and v > 0 for v in (self.x, self.y)):
            raise InvalidParameter("mpp", f"mpp must be a finite number above 0 (um per pixel), got {self.x}, {self.y}")


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Technical warnings about one image (no diagnosis): codes, the worst verdict, and what was measured."""

    verdict: Verdict = "pass"
    codes: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Segmentation:
    """One analysed image.

    Attributes:
        grid: (h, w) int32, instances on the model's grid; 0 background, 1..N.
        nuclei: columns in the caller's pixels; `nuclei.id[i] == i + 1`.
        height, width: of the caller's image.
        mpp: of the caller's image.
        model_mpp: um per pixel of `grid`.
        profile: which views were averaged.
        qc: technical warnings.
        repaired, dropped: instances mended (holes filled, parts cut off) and removed on the label map.
    """

    grid: Int32
    nuclei: Nuclei
    height: int
    width: int
    mpp: Mpp
    model_mpp: float
    profile: Profile
    qc: QualityReport
    repaired: int = 0
    dropped: int = 0

    @cached_property
    def instance_map(self) -> Int32:
        """(H, W) int32 on the caller's grid, nearest; 0 background, 1..N."""
        if self.grid.shape == (self.height, self.width):
            return self.grid
        rows = ((np.arange(self.height) + 0.5) * self.grid.shape[0] / self.height).astype(np.intp)
        cols = ((np.arange(self.width) + 0.5) * self.grid.shape[1] / self.width).astype(np.intp)
        return np.asarray(self.grid[rows[:, None], cols[None, :]], np.int32)

    @cached_property
    def type_map(self) -> UInt8:
        """(H, W) uint8 on the caller's grid: class id of each nucleus' pixels, 0 background."""
        table = np.zeros(len(self.nuclei) + 1, np.uint8)
        table[1:] = self.nuclei.type
        return table[self.instance_map]

    @property
    def counts(self) -> dict[str, int]:
        """Nuclei per class name, zeros included; those the model calls background are in no class."""
        found = np.bincount(self.nuclei.type, minlength=len(CLASSES) + 1)
        return {c.name: int(found[c.id]) for c in CLASSES}
