"""Where do the maps of an image lie so that another process can read them?

In memory without a name (`memfd_create`), whose descriptor is handed over: nothing is left behind in /dev/shm by a
process that is killed, a container's 64 MB there do not matter, and no resource tracker unlinks what others still use.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from app.nuclei.separation import Method
from app.nuclei.types import HoverMaps

MOST_KEPT = 8  # segments, each of which takes two descriptors
KEPT_BYTES = 64 << 20
"""Memory kept for the next image: fresh pages cost more time than what is written into them."""
LARGE_BYTES = 128 << 20
"""Memory of an image whose maps are changed in place: a copy of them would be much."""


class Segment(mmap.mmap):
    """Memory that several processes may map; it goes when the last of them lets go.

    Attributes:
        file: descriptor, this process' own.
    """

    file: int

    @classmethod
    def fresh(cls, size: int) -> Self:
        """So many bytes."""
        file = os.memfd_create("karyon-maps", os.MFD_CLOEXEC)
        try:
            os.ftruncate(file, size)
            own = cls(file, size)
        except BaseException:
            os.close(file)
            raise
        own.file = file
        return own

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


@dataclass(frozen=True, slots=True)
class Layout:
    """One array in a segment: where it begins, its shape and strides, in bytes."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, array: npt.NDArray[Any], segment: Segment) -> Self:
        """Where an array lies in a segment."""
        begin = np.frombuffer(segment, np.uint8).__array_interface__["data"][0]
        return cls(array.__array_interface__["data"][0] - begin, array.shape, array.strides)

    def array(self, memory: mmap.mmap, dtype: type[np.generic] = np.float32) -> npt.NDArray[Any]:
        """The array, without a copy."""
        return np.ndarray(self.shape, dtype, memory, self.offset, self.strides)


@dataclass(frozen=True, slots=True)
class Task:
    """The maps of an image in a segment, what is to be done with them, and where the label map shall lie.

    Attributes:
        size: of the segment, in bytes.
        where: np_prob, hv and type_prob.
        grid: (H, W) int32.
        method: how the maps are read.
    """

    size: int
    where: tuple[Layout, ...]
    grid: Layout
    method: Method

    @classmethod
    def of(cls, maps: HoverMaps, segment: Segment, method: Method) -> Self:
        """To separate maps that lie in a segment of `Segments`."""
        height, width = maps.np_prob.shape
        where = tuple(Layout.of(one, segment) for one in _arrays(maps))
        return cls(len(segment), where, Layout(0, (height, width), (4 * width, 4)), method)

    @property
    def pixels(self) -> int:
        """Of the maps."""
        return math.prod(self.grid.shape)

    @property
    def is_large(self) -> bool:
        """Whether the maps are changed in place."""
        return self.size > LARGE_BYTES

    def maps(self, memory: mmap.mmap) -> HoverMaps:
        """The maps, without a copy."""
        return HoverMaps(*(one.array(memory) for one in self.where))


class Segments:
    """Makes segments, and keeps some for the next image; for threads."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        """None yet.

        Args:
            kept_bytes: of all that are kept together.
        """
        self._most = kept_bytes
        self._free: list[Segment] = []
        self._lock = threading.Lock()

    def blank(self, height: int, width: int, channels: int) -> HoverMaps:
        """Maps (H, W) of arbitrary content in one segment, behind room for the label map."""
        plane = 4 * height * width
        segment = self._take(plane * (1 + 1 + 2 + channels))
        np_prob = np.ndarray((height, width), np.float32, segment, plane)
        hv = np.ndarray((height, width, 2), np.float32, segment, 2 * plane)
        return HoverMaps(np_prob, hv, np.ndarray((height, width, channels), np.float32, segment, 4 * plane))

    def holding(self, maps: HoverMaps) -> tuple[HoverMaps, Segment]:
        """The maps, copied into a segment if they do not lie in one, and that segment."""
        owners = [owner(one) for one in _arrays(maps)]
        if owners[0] is not None and owners[0] is owners[1] is owners[2]:
            return maps, owners[0]
        own = self.blank(*maps.type_prob.shape)
        for target, source in zip(_arrays(own), _arrays(maps), strict=True):
            target[...] = source
        return self.holding(own)

    def give_back(self, segment: Segment) -> None:
        """Keep a segment for the next image, if there is room; nobody may look at its maps any more."""
        if len(segment) > self._most:
            return
        with self._lock:
            self._free.append(segment)
            while len(self._free) > MOST_KEPT or sum(map(len, self._free)) > self._most:
                self._free.pop(0)

    def _take(self, size: int) -> Segment:
        with self._lock:
            fitting = [one for one in self._free if size <= len(one) <= max(2 * size, mmap.PAGESIZE)]
            if fitting:
                self._free.remove(best := min(fitting, key=len))
                return best
            while self._free and size + sum(map(len, self._free)) > self._most:
                self._free.pop(0)
        return Segment.fresh(max(size, mmap.PAGESIZE))


def owner(array: npt.NDArray[Any]) -> Segment | None:
    """The segment that an array lies in, if it does."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, Segment) else None


def _arrays(maps: HoverMaps) -> tuple[npt.NDArray[Any], ...]:
    return maps.np_prob, maps.hv, maps.type_prob
