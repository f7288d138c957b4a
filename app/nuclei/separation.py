"""How do maps become nuclei? The step that is run here, or in a process that may crash without harm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.nuclei import hover, instances, tiling
from app.nuclei.errors import KaryonError
from app.nuclei.hover import OperatingPoint
from app.nuclei.types import Float32, HoverMaps, Int32, Nuclei

Bool = npt.NDArray[np.bool_]
BAND = 256  # rows that are calibrated at a time


@dataclass(frozen=True, slots=True)
class Method:
    """How the maps of one image are read.

    Attributes:
        point: thresholds of the separation.
        temperature: of the class probabilities.
        step: (x, y), pixels of the caller's image per pixel of the maps.
    """

    point: OperatingPoint
    temperature: float
    step: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Separated:
    """The nuclei of one image.

    Attributes:
        grid: (H, W) int32, instances on the model's grid; 0 background, 1..N.
        nuclei: columns in the caller's pixels; `nuclei.id[i] == i + 1`.
        repaired, dropped: instances mended (holes filled, parts cut off) and removed on the label map.
    """

    grid: Int32
    nuclei: Nuclei
    repaired: int
    dropped: int


class SeparatorFault(KaryonError):
    """What separates nuclei crashed over an image, or took too long; a later attempt may well succeed."""


class Separator(Protocol):
    """Where maps are gathered, and what makes nuclei of them."""

    def blank(self, height: int, width: int, channels: int) -> HoverMaps:
        """Maps (H, W) of arbitrary content, to be filled and then separated."""
        ...

    def separate(self, maps: HoverMaps, method: Method) -> Separated:
        """The nuclei of maps (H, W); the maps are used up and must not be looked at again."""
        ...


class Here:
    """Separates in the thread that asks."""

    def blank(self, height: int, width: int, channels: int) -> HoverMaps:
        """Fresh arrays."""
        return tiling.blank(height, width, channels)

    def separate(self, maps: HoverMaps, method: Method) -> Separated:
        """As `separated`."""
        return separated(maps, method)


HERE = Here()


def separated(maps: HoverMaps, method: Method) -> Separated:
    """Separate, mend and describe the nuclei of an image.

    Args:
        maps: (H, W); the class probabilities of nuclei are calibrated in place.
        method: how they are read.
    """
    labels, found = hover.separated(maps.np_prob, maps.hv, method.point)
    grid, repaired, dropped, runs = instances.tidied(labels, runs=found)
    calibrate(maps.type_prob, grid > 0, method.temperature)
    return Separated(grid, instances.describe(grid, maps.type_prob, method.step, runs=runs), repaired, dropped)


def calibrated(type_prob: Float32, where: Bool, temperature: float) -> Float32:
    """As `calibrate`, in a copy, or the array itself at temperature 1."""
    if temperature == 1:
        return type_prob
    result = type_prob.copy()
    calibrate(result, where, temperature)
    return result


def calibrate(type_prob: Float32, where: Bool, temperature: float) -> None:
    """Apply their temperature to class probabilities at some pixels, in place: of a large image they are most memory.

    Args:
        type_prob: (H, W, C), sums to 1 over C.
        where: (H, W).
        temperature: above 1 says less sure, below 1 surer; arg-max stays.
    """
    if temperature == 1:
        return
    for top in range(0, len(type_prob), BAND):
        band, here = type_prob[top : top + BAND], where[top : top + BAND]
        powered = band[here] ** np.float32(1 / temperature)
        powered /= powered.sum(-1, keepdims=True)
        band[here] = powered
