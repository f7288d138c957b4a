"""How do nuclei leave as a DICOM segmentation: the class of every pixel of level 0?

A label map, segment number = class id, tiled without gaps. highdicom would want the mask of the whole slide at once, so
it builds the attributes from a mask of one pixel. The frames are written behind them row by row, run-length encoded:
glass costs next to nothing, and the file may be larger than 4 GiB. Needs the extra `dicom`.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from math import ceil
from typing import IO

import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from app.formats.dicom import Origin
from app.formats.dicomcodes import CATEGORY, of_type
from app.formats.dicomparts import algorithm, colour, common, concept, settled, source_image, spooled
from app.formats.document import NOTICE
from app.formats.raster import fill
from app.nuclei.errors import InvalidImage
from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Nuclei, UInt8

SIDE = 512  # of a frame
_PIXEL_DATA = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
_ITEM = struct.Struct("<HHL")
_NO_OFFSETS = _ITEM.pack(0xFFFE, 0xE000, 0)  # the offset table, which may be empty
_END = _ITEM.pack(0xFFFE, 0xE0DD, 0)
_ONE_SEGMENT = struct.pack("<16L", 1, 64, *[0] * 14)  # of a run-length encoded frame (DICOM PS3.5, Annex G)


class Mask:
    """Pixels of nuclei, held only where some are and only until their row of frames is complete."""

    def __init__(self, width: int, height: int) -> None:
        """Of a slide; pixels are 0 until something is painted."""
        self.rows, self.columns = ceil(height / SIDE), ceil(width / SIDE)
        self._frames: dict[tuple[int, int], UInt8] = {}
        self._done = 0
        self._empty = run_length(np.zeros((SIDE, SIDE), np.uint8))

    def paint(self, nuclei: Nuclei) -> None:
        """Give the pixels whose centres lie inside nuclei the ids of their classes; class 0 leaves no trace."""
        if not len(nuclei):
            return
        left, top = (int(v) // SIDE for v in np.maximum(np.floor(nuclei.bbox[:, :2].min(axis=0)), 0))
        right, bottom = (ceil(v / SIDE) for v in nuclei.bbox[:, 2:].max(axis=0))
        right, bottom = min(right, self.columns), min(bottom, self.rows)
        if top < self._done:
            raise ValueError("nuclei must come from top to bottom")
        x, y, width, height = (SIDE * v for v in (left, top, right - left, bottom - top))
        labels = fill(nuclei.rings.points, nuclei.rings.offsets, x, y, width, height)
        types = np.concatenate([[0], nuclei.type]).astype(np.uint8)[labels]
        for row in range(top, bottom):
            for column in range(left, right):
                piece = types[SIDE * (row - top) :, SIDE * (column - left) :][:SIDE, :SIDE]
                if piece.any():
                    frame = self._frames.setdefault((row, column), np.zeros((SIDE, SIDE), np.uint8))
                    np.copyto(frame, piece, where=piece > 0)

    def frames(self, above: float = np.inf) -> Iterator[bytes]:
        """Encoded frames in reading order, of rows that lie above a position and were not taken before."""
        complete = self.rows if above == np.inf else min(self.rows, max(0, int(above) // SIDE))
        while self._done < complete:
            for column in range(self.columns):
                frame = self._frames.pop((self._done, column), None)
                yield self._empty if frame is None else run_length(frame)
            self._done += 1


class Labels:
    """Nuclei in, tile by tile from top to bottom; the file out."""

    def __init__(self, origin: Origin) -> None:
        """The attributes are written, no frame is.

        Raises:
            InvalidImage: if the slide's file does not say where it lies on the glass, or lacks what must be repeated.
        """
        image = source_image(origin.image)
        self._mask = Mask(int(image.TotalPixelMatrixColumns), int(image.TotalPixelMatrixRows))
        described = attributes(image, origin, self._mask.rows * self._mask.columns)
        self._file = spooled()
        described.save_as(self._file, enforce_file_format=True)
        self._file.write(_PIXEL_DATA + _NO_OFFSETS)

    def add(self, nuclei: Nuclei, above: float) -> None:
        """Take nuclei in slide pixels.

        Args:
            nuclei: of one tile.
            above: neither they nor any that come later reach above this row.
        """
        self._write(self._mask.frames(above - 1))  # positions are rounded
        self._mask.paint(nuclei)

    def finish(self) -> IO[bytes]:
        """The file, at its beginning."""
        self._write(self._mask.frames())
        self._file.write(_END)
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Give the file up."""
        self._file.close()

    def _write(self, frames: Iterator[bytes]) -> None:
        for frame in frames:
            self._file.write(_ITEM.pack(0xFFFE, 0xE000, len(frame)) + frame)


def attributes(image: Dataset, origin: Origin, frames: int) -> Dataset:
    """The segmentation without its pixels.

    Args:
        image: of level 0, see `dicomparts.source_image`.
        origin: of the results.
        frames: how many there will be.

    Raises:
        InvalidImage: if the slide's file does not say where it lies on the glass.
    """
    check_placed(image)
    pixel = copy.deepcopy(image)
    pixel.TotalPixelMatrixRows = pixel.TotalPixelMatrixColumns = 1
    made = Segmentation(
        [pixel],
        np.zeros((1, 1, 1), np.uint8),
        "LABELMAP",
        [_segment(origin, c.id) for c in CLASSES],
        omit_empty_frames=False,  # highdicom's default contradicts TILED_FULL
        tile_pixel_array=True,
        tile_size=(SIDE, SIDE),
        dimension_organization_type="TILED_FULL",
        content_label="NUCLEI",
        content_description=NOTICE,
        **common(origin, "seg") | {"transfer_syntax_uid": RLELossless},
    )
    made.TotalPixelMatrixRows, made.TotalPixelMatrixColumns = image.TotalPixelMatrixRows, image.TotalPixelMatrixColumns
    made.NumberOfFrames = frames
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = origin.uid("dimensions")
    del made.PixelData
    return settled(made, origin)


def check_placed(image: Dataset) -> None:
    """Refuse a slide of which nobody knows where it lies on the glass.

    Raises:
        InvalidImage: naming what its file lacks.
    """
    shared = (image.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    measures = (shared.get("PixelMeasuresSequence") or [Dataset()])[0]
    for keyword, where in {
        **{"TotalPixelMatrixOriginSequence": image, "ImageOrientationSlide": image},
        **{"PixelSpacing": measures, "SliceThickness": measures},
    }.items():
        if where.get(keyword) in (None, "", []):
            raise InvalidImage(
                f"the slide's DICOM file has no {keyword}: a segmentation could not say where it lies on the glass. "
                "Annotations (ann) and a report (sr) can be had"
            )


def run_length(frame: UInt8) -> bytes:
    """A frame as RLE Lossless (DICOM PS3.5, Annex G); runs of one value become two bytes each.

    Args:
        frame: (H, W).
    """
    flat, width = frame.ravel(), frame.shape[1]
    begins = np.empty(len(flat), np.bool_)
    begins[0], begins[1:] = True, flat[1:] != flat[:-1]
    begins[::width] = True  # runs end with their row
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(flat))
    parts = -(-lengths // 128)  # no run is longer than 128
    value = np.repeat(flat[starts], parts)
    length = np.full(len(value), 128)
    last = np.cumsum(parts) - 1
    length[last] = lengths - 128 * (parts - 1)
    control = np.where(length == 1, 0, 257 - length).astype(np.uint8)  # 0: one value as it is
    return _ONE_SEGMENT + np.stack([control, value], axis=1).tobytes()


def _segment(origin: Origin, type_id: int) -> SegmentDescription:
    label, code = of_type(type_id)
    return SegmentDescription(
        type_id,
        label,
        concept(CATEGORY),
        concept(code),
        "AUTOMATIC",
        algorithm(origin),
        display_color=colour(type_id),
    )
