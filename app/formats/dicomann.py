"""How do nuclei leave as DICOM annotations: outlines, class, area and probability?

Microscopy Bulk Simple Annotations, a group per class. Points are (column, row) of the total pixel matrix from its top
left corner, as float32: up to 131,072 pixels from there it keeps steps of 1/128 of a pixel. Needs the extra `dicom`.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from highdicom.ann import AnnotationGroup, Measurements, MicroscopyBulkSimpleAnnotations

from app.formats.dicom import Origin
from app.formats.dicomcodes import AREA, CATEGORY, NO_UNITS, PROBABILITY, SQUARE_MICROMETER, of_type
from app.formats.dicomparts import algorithm, colour, common, concept, settled, source_image
from app.formats.document import NOTICE
from app.nuclei.errors import NotFound, PayloadTooLarge
from app.nuclei.types import Float32, Int64, Nuclei

MOST_POINTS = 2**26
"""Of all outlines together, about 2.5 million nuclei. The format gives a group's points as one value, which is held
in memory, and copied while it is written."""


class Annotations:
    """Nuclei in, tile by tile; the object out."""

    def __init__(self, origin: Origin) -> None:
        """Nothing yet.

        Raises:
            InvalidImage: if the slide's file lacks what annotations must repeat.
        """
        self._origin, self._image = origin, source_image(origin.image)
        self._points: dict[int, list[Float32]] = defaultdict(list)
        self._lengths: dict[int, list[Int64]] = defaultdict(list)
        self._figures: dict[int, list[Float32]] = defaultdict(list)
        self._total = 0

    def add(self, nuclei: Nuclei) -> None:
        """Take nuclei in slide pixels.

        Raises:
            PayloadTooLarge: if their outlines do not go into one object.
        """
        rings = nuclei.rings
        lengths = np.diff(rings.offsets) - 1
        self._total += int(lengths.sum())
        if self._total > MOST_POINTS:
            raise PayloadTooLarge(
                f"one DICOM object takes {MOST_POINTS} points of outlines; take geojson or parquet, or dicom-seg"
            )
        opened = np.ones(len(rings.points), np.bool_)
        opened[rings.offsets[1:] - 1] = False  # the first point is not repeated, unlike in a ring
        points = rings.points[opened].astype(np.float32)
        area_um2 = nuclei.area * self._origin.mpp.x * self._origin.mpp.y
        figures = np.stack([area_um2, nuclei.type_prob], axis=1).astype(np.float32)
        of_point = np.repeat(nuclei.type, lengths)
        for type_id in np.unique(nuclei.type).tolist():
            ours = nuclei.type == type_id
            self._points[type_id].append(points[of_point == type_id])
            self._lengths[type_id].append(lengths[ours])
            self._figures[type_id].append(figures[ours])

    def finish(self) -> MicroscopyBulkSimpleAnnotations:
        """The object; what was added is let go.

        Raises:
            NotFound: if there are no nuclei: annotations without a group are no valid object.
        """
        if not self._points:
            raise NotFound("no nuclei were found on this slide: there is nothing to annotate")
        origin = self._origin
        groups = [self._group(n, type_id) for n, type_id in enumerate(sorted(self._points), 1)]
        made = MicroscopyBulkSimpleAnnotations(
            [self._image],
            "2D",
            groups,
            pixel_origin_interpretation="VOLUME",
            content_label="NUCLEI",
            content_description=NOTICE,
            **common(origin, "ann"),
        )
        return settled(made, origin)

    def _group(self, number: int, type_id: int) -> AnnotationGroup:
        label, code = of_type(type_id)
        group = AnnotationGroup(
            number,
            self._origin.uid("group", type_id),
            label,
            concept(CATEGORY),
            concept(code),
            "POLYGON",
            [np.eye(3, 2, dtype=np.float32)],  # stands in: highdicom wants an array per nucleus, here there is one
            "AUTOMATIC",
            algorithm(self._origin),
            description=NOTICE,
            display_color=colour(type_id),
        )
        points, lengths, figures = (
            np.concatenate(each.pop(type_id)) for each in (self._points, self._lengths, self._figures)
        )
        group.NumberOfAnnotations = len(lengths)
        group.PointCoordinatesData = points.tobytes()
        starts = np.cumsum(lengths) - lengths
        group.LongPrimitivePointIndexList = (2 * starts + 1).astype(np.int32).tobytes()  # of values, counted from 1
        group.MeasurementsSequence = [
            Measurements(concept(AREA), figures[:, 0], concept(SQUARE_MICROMETER)),
            Measurements(concept(PROBABILITY), figures[:, 1], concept(NO_UNITS)),
        ]
        return group
