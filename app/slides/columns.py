"""How do the nuclei of a tile become few bytes, and come back without the change of a single bit?

Every figure is kept as it is: rounding centroids or probabilities would move the second decimal of an export now and
then. What makes it small instead is that most figures are whole numbers in disguise. Rings, boxes and areas lie on the
pixel lattice of the model's grid, so they are kept as integers and its step, rings as differences from point to point;
a column that does not lie there (a simplified ring) is kept as float64. Then bytes of equal weight are laid together
and compressed; zlib's checksum tells damage.

Two pieces, little-endian: `table` (version, flags, N, C-1, step x, step y, then all columns but the rings) and `rings`
(version, flags, N, M, step x, step y, then points a ring, x, y). Positions are relative to the tile's corner.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from app.nuclei.errors import StoreDamaged
from app.nuclei.types import Float64, Int64, Nuclei, Rings, UInt8

VERSION = 1
LEVEL = 1  # of zlib: higher ones save 4 % and take three times as long
_HEAD = struct.Struct("<BBIIdd")
_IN_ORDER, _OWN_PROB, _BOX_ON_LATTICE, _AREA_ON_LATTICE = 1, 2, 4, 8
_RINGS_ON_LATTICE, _WIDE = 1, 2

Array = npt.NDArray[Any]
Point = tuple[float, float]


class Packed(NamedTuple):
    """The nuclei of a tile as bytes: all columns but the rings, and the rings, which few queries need."""

    table: bytes
    rings: bytes


def pack(nuclei: Nuclei, step: Point = (1.0, 1.0)) -> Packed:
    """Nuclei as bytes.

    Args:
        nuclei: of one tile, positions relative to its corner.
        step: tile pixels per pixel of the grid on which the nuclei were traced; a wrong one costs bytes, no accuracy.
    """
    return Packed(_pack_table(nuclei, step), _pack_rings(nuclei.rings, step))


def unpack(packed: Packed, origin: Point = (0.0, 0.0)) -> Nuclei:
    """The nuclei that were packed, bit for bit, moved to `origin`.

    Raises:
        StoreDamaged: if the bytes are damaged or of a newer version.
    """
    rings = unpack_rings(packed.rings, origin)
    nuclei = unpack_table(packed.table, origin, rings)
    if len(rings) != len(nuclei):
        raise StoreDamaged(f"{len(rings)} rings for {len(nuclei)} nuclei")
    return nuclei


def unpack_table(table: bytes, origin: Point = (0.0, 0.0), rings: Rings | None = None) -> Nuclei:
    """All columns, with the rings given (none by default, which is faster where only positions and classes count).

    Raises:
        StoreDamaged: if the bytes are damaged or of a newer version.
    """
    (flags, n, classes, step), body = _opened(table)
    at = np.array([*origin, *origin])
    ids = np.arange(1, n + 1, dtype=np.int32) if flags & _IN_ORDER else body.take("<i4", n)
    kind = body.take("u1", n)
    probs = body.take("<f4", n, classes)
    own = probs[np.arange(n), kind.astype(np.intp) - 1] if flags & _OWN_PROB else body.take("<f4", n)
    centroid, covariance = body.take("<f8", n, 2) + at[:2], body.take("<f8", n, 3)
    box = body.take("<i4", n, 4) * np.array([*step, *step]) if flags & _BOX_ON_LATTICE else body.take("<f8", n, 4)
    area = body.take("<i4", n) * (step[0] * step[1]) if flags & _AREA_ON_LATTICE else body.take("<f8", n)
    body.end()
    return Nuclei(ids, kind, own, probs, centroid, box + at, area, covariance, rings or _no_rings())


def unpack_rings(data: bytes, origin: Point = (0.0, 0.0)) -> Rings:
    """The rings alone.

    Raises:
        StoreDamaged: if the bytes are damaged or of a newer version.
    """
    (flags, n, count, step), body = _opened(data)
    lengths = body.take("<u4", n)
    offsets: Int64 = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if offsets[-1] != count:
        raise StoreDamaged(f"rings of {offsets[-1]} points, {count} announced")
    if flags & _RINGS_ON_LATTICE:
        moves = body.take("<i4" if flags & _WIDE else "<i2", 2, count)
        points: Float64 = np.cumsum(moves, axis=1, dtype=np.int64).T * np.array(step)
    else:
        points = body.take("<f8", 2, count).T.copy()
    body.end()
    return Rings(np.ascontiguousarray(points + np.array(origin)), offsets)


def step_of(piece: bytes) -> Point:
    """Tile pixels per pixel of the grid on which the nuclei of a piece were traced, (x, y).

    Raises:
        StoreDamaged: if the bytes are no piece.
    """
    if len(piece) < _HEAD.size:
        raise StoreDamaged("the nuclei of a tile are damaged")
    *_, step_x, step_y = _HEAD.unpack_from(piece)
    return step_x, step_y


def _pack_table(nuclei: Nuclei, step: Point) -> bytes:
    n, classes = nuclei.class_probs.shape
    rows = np.arange(n)
    own = classes > 0 and (nuclei.type > 0).all()
    own = own and np.array_equal(nuclei.class_probs[rows, nuclei.type.astype(np.intp) - 1], nuclei.type_prob)
    boxes = _on_lattice(nuclei.bbox, np.array([*step, *step]))
    areas = _on_lattice(nuclei.area, np.array(step[0] * step[1]))
    in_order = np.array_equal(nuclei.id, rows + 1)
    flags = in_order * _IN_ORDER | bool(own) * _OWN_PROB
    flags |= (boxes is not None) * _BOX_ON_LATTICE | (areas is not None) * _AREA_ON_LATTICE
    columns: list[tuple[Array, str]] = [
        *([] if in_order else [(nuclei.id, "<i4")]),
        (nuclei.type, "u1"),
        (nuclei.class_probs, "<f4"),
        *([] if own else [(nuclei.type_prob, "<f4")]),
        (nuclei.centroid, "<f8"),
        (nuclei.covariance, "<f8"),
        (nuclei.bbox, "<f8") if boxes is None else (boxes, "<i4"),
        (nuclei.area, "<f8") if areas is None else (areas, "<i4"),
    ]
    return _closed((flags, n, classes, step), columns)


def _pack_rings(rings: Rings, step: Point) -> bytes:
    lengths: list[tuple[Array, str]] = [(np.diff(rings.offsets), "<u4")]
    whole = _on_lattice(rings.points, np.array(step))
    if whole is None:
        return _closed((0, len(rings), len(rings.points), step), [*lengths, (rings.points.T, "<f8")])
    moves = np.diff(whole, axis=0, prepend=0).T
    wide = moves.size > 0 and (moves.min() < -(2**15) or moves.max() >= 2**15)
    flags = _RINGS_ON_LATTICE | bool(wide) * _WIDE
    return _closed((flags, len(rings), len(rings.points), step), [*lengths, (moves, "<i4" if wide else "<i2")])


def _on_lattice(values: Float64, step: Array) -> Int64 | None:
    """Whole numbers that give exactly `values` when multiplied by `step`, or None if there are none."""
    whole = np.rint(values / step)
    if not (np.abs(whole) < 2**31).all() or not np.array_equal(whole * step, values):
        return None
    return whole.astype(np.int64)


def _closed(head: tuple[int, int, int, Point], columns: list[tuple[Array, str]]) -> bytes:
    flags, n, m, step = head
    body = b"".join(_shuffled(column, kind) for column, kind in columns)
    return _HEAD.pack(VERSION, flags, n, m, *step) + zlib.compress(body, LEVEL)


def _opened(data: bytes) -> tuple[tuple[int, int, int, Point], _Body]:
    try:
        version, flags, n, m, step_x, step_y = _HEAD.unpack_from(data)
        if version != VERSION:
            raise StoreDamaged(f"nuclei of version {version}; this service reads version {VERSION}")
        return (flags, n, m, (step_x, step_y)), _Body(zlib.decompress(memoryview(data)[_HEAD.size :]))
    except (struct.error, zlib.error) as error:
        raise StoreDamaged("the nuclei of a tile are damaged") from error


def _shuffled(column: Array, kind: str) -> bytes:
    """First bytes of all numbers, then second bytes, and so on: equal exponents and high bytes come to lie together."""
    size = np.dtype(kind).itemsize
    octets = np.ascontiguousarray(column, kind).reshape(-1).view(np.uint8).reshape(1, -1, size)
    if size == 1 or not octets.size:
        return octets.tobytes()
    return b"".join(plane.tobytes() for plane in cv2.split(octets))


def _unshuffled(octets: UInt8, size: int) -> UInt8:
    """Back again; OpenCV takes a hundredth of the time of a transposed copy."""
    if size == 1 or not octets.size:
        return octets.copy()
    return np.asarray(cv2.merge(list(octets.reshape(size, 1, -1))), np.uint8).reshape(-1)


class _Body:
    """Columns one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, kind: str, *shape: int) -> Array:
        """The next column, as a fresh array."""
        size = np.dtype(kind).itemsize
        count = int(np.prod(shape, dtype=np.int64))
        piece = self._data[self._at : self._at + size * count]
        self._at += size * count
        if len(piece) != size * count:
            raise StoreDamaged("the nuclei of a tile are cut short")
        return _unshuffled(np.frombuffer(piece, np.uint8), size).view(kind).reshape(shape)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise StoreDamaged("the nuclei of a tile have bytes too many")


def _no_rings() -> Rings:
    return Rings(np.zeros((0, 2)), np.zeros(1, np.int64))
