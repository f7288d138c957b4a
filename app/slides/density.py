"""How many nuclei of each class lie where, without opening every nucleus?

Beside each tile its nuclei are kept as counts per cell of 32 x 32 level-0 pixels, on one lattice for the whole slide:
only those that count, by centroid. Adding the pieces up gives the density of any part of the slide.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from app.nuclei.errors import StoreDamaged
from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Float64, Int64, UInt8
from app.slides.places import Box

CELL = 32
KINDS = len(CLASSES) + 1
"""Channels: 0 for nuclei whose class stayed open, then the classes of the taxonomy."""
_HEAD = struct.Struct("<IIIIB")  # first column, first row, width, height, bytes a figure


@dataclass(frozen=True, slots=True)
class Cells:
    """A box of cells.

    Attributes:
        col, row: of the first one.
        width, height: how many.
        side: level-0 pixels of a cell, a multiple of `CELL`.
    """

    col: int
    row: int
    width: int
    height: int
    side: int = CELL

    @property
    def box(self) -> Box:
        """The box on the slide."""
        right, bottom = self.col + self.width, self.row + self.height
        x0, y0, x1, y1 = (self.side * each for each in (self.col, self.row, right, bottom))
        return Box(x0, y0, x1, y1)


def pack_density(centroid: Float64, kinds: UInt8) -> bytes:
    """The counts of a tile.

    Args:
        centroid: (N, 2) of the nuclei that count, on the slide.
        kinds: (N,) their classes.
    """
    if not len(kinds):
        return b""
    at = np.maximum(np.floor(centroid / CELL), 0).astype(np.int64)
    col, row = at.min(axis=0).tolist()
    width, height = (at.max(axis=0) - (col, row) + 1).tolist()
    place = (kinds.astype(np.int64) * height + at[:, 1] - row) * width + at[:, 0] - col
    counts = np.bincount(place, minlength=KINDS * height * width)
    kind = "u1" if counts.max() < 2**8 else "<u4"
    head = _HEAD.pack(col, row, width, height, np.dtype(kind).itemsize)
    return head + zlib.compress(counts.astype(kind).tobytes(), 1)


def add_up(pieces: Iterable[bytes], cells: Cells) -> Int64:
    """(KINDS, height, width) int64: nuclei in each cell of a box, from the pieces of all tiles that meet it.

    Raises:
        StoreDamaged: if a piece does not decode.
    """
    total = np.zeros((KINDS, cells.height, cells.width), np.int64)
    for piece in pieces:
        if piece:
            _add(total, piece, cells)
    return total


def _add(total: Int64, piece: bytes, cells: Cells) -> None:
    try:
        col, row, width, height, size = _HEAD.unpack_from(piece)
        data = zlib.decompress(memoryview(piece)[_HEAD.size :])
        counts = np.frombuffer(data, "u1" if size == 1 else "<u4").reshape(KINDS, height, width)
    except (struct.error, zlib.error, ValueError) as error:
        raise StoreDamaged("the density of a tile is damaged") from error
    if (together := cells.side // CELL) > 1:
        counts = np.add.reduceat(counts, _starts(row, height, together), 1, np.int64)
        counts = np.add.reduceat(counts, _starts(col, width, together), 2, np.int64)
        col, row, height, width = col // together, row // together, *counts.shape[1:]
    left, top = max(col, cells.col), max(row, cells.row)
    right, bottom = min(col + width, cells.col + cells.width), min(row + height, cells.row + cells.height)
    if left < right and top < bottom:
        part = counts[:, top - row : bottom - row, left - col : right - col]
        total[:, top - cells.row : bottom - cells.row, left - cells.col : right - cells.col] += part


def _starts(first: int, count: int, together: int) -> Int64:
    """Where the cells of a piece pass from one larger cell to the next."""
    borders = np.arange(first // together, (first + count - 1) // together + 1) * together - first
    return np.maximum(borders, 0)
