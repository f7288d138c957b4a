"""How do nuclei leave for QuPath and every other reader of GeoJSON?

A FeatureCollection (RFC 7946) of detections, each with the class, colour and measurements that QuPath's reader takes
over, in pixels of the caller's image. No null occurs inside a feature, no number that is not finite.
"""

from __future__ import annotations

import json

import numpy as np
import orjson

from app.formats.document import UNCERTAIN_BELOW, RequestContext, members
from app.formats.featuretext import Columns, Fixed, Pieces, features
from app.nuclei.errors import InferenceFailed
from app.nuclei.taxonomy import CLASSES, NAMES
from app.nuclei.types import Float64, Segmentation

MEDIA_TYPE = "application/geo+json"
SUMMARY_MEDIA_TYPE = "application/json"

COORDINATE_PLACES = 2  # QuPath itself rounds to .01 pixel
# Name -> decimals, in the order written. `Uncertain` is 1 where the class has a probability below 0.5.
MEASUREMENTS: dict[str, int] = {
    **{f"Probability: {name}": 4 for name in NAMES},
    "Area um^2": 2,
    "Area px^2": 2,
    "Mean diameter um": 2,
    "Mean diameter px": 2,
    "Uncertain": 0,
}


def _classification(name: str, colour: tuple[int, int, int]) -> str:
    return f'"classification":{json.dumps({"name": name, "color": colour}, separators=(",", ":"))},'


_CLASSIFICATIONS = Pieces.of("", *(_classification(c.name, c.colour) for c in CLASSES))  # by class id; 0 has none
_FRAME = Pieces.of(
    '{"type":"Feature","id":"',
    '","geometry":{"type":"Polygon","coordinates":[[',
    ']]},"properties":{"objectType":"detection",',
    *(('"measurements":{' if i == 0 else ",") + f'"{name}":' for i, name in enumerate(MEASUREMENTS)),
    "}}}",
)


def encode(segmentation: Segmentation, context: RequestContext) -> bytes:
    """The whole answer: the members around the features, and one feature per nucleus.

    Args:
        segmentation: the analysed image.
        context: who asked, and what answered.

    Returns:
        UTF-8 JSON. Each feature has a stable UUID, one closed ring (counter-clockwise by number, at most 2 decimals)
        and `properties` with `objectType` "detection", `classification` (none where the class stayed open) and
        `measurements`.

    Raises:
        InferenceFailed: if a measurement is not finite: no reader would take the file.
    """
    head = orjson.dumps({"type": "FeatureCollection", **members(segmentation, context)})
    return b'%b,"features":[%b]}' % (head[:-1], features(_columns(segmentation, context)))


def encode_summary(segmentation: Segmentation, context: RequestContext) -> bytes:
    """The same object without `type` and `features`, as UTF-8 JSON."""
    return orjson.dumps(members(segmentation, context))


def _columns(segmentation: Segmentation, context: RequestContext) -> Columns:
    nuclei = segmentation.nuclei
    places = np.array(list(MEASUREMENTS.values()), np.int64)
    return Columns(
        ids=context.nucleus_ids(segmentation),
        rings=_coordinates(nuclei.rings.points),
        offsets=np.ascontiguousarray(nuclei.rings.offsets, np.int64),
        kinds=np.ascontiguousarray(nuclei.type, np.uint8),
        numbers=Fixed.of(measured(segmentation), places),
        kind_pieces=_CLASSIFICATIONS,
        frame=_FRAME,
    )


def _coordinates(points: Float64) -> Fixed:
    whole = np.rint(points)
    if np.array_equal(whole, points):  # at the model's own scale: no decimals to look for
        return Fixed(whole.astype(np.int64), np.zeros(2, np.int64))
    return Fixed.of(points, np.full(2, COORDINATE_PLACES, np.int64))


def measured(segmentation: Segmentation) -> Float64:
    """(N, K) float64: the columns of `MEASUREMENTS`, not yet rounded.

    Raises:
        InferenceFailed: if one of them is not finite.
    """
    nuclei, mpp = segmentation.nuclei, segmentation.mpp
    others = [
        nuclei.area * mpp.x * mpp.y,
        nuclei.area,
        nuclei.mean_diameter(mpp.x, mpp.y),
        nuclei.mean_diameter(),
        nuclei.type_prob < UNCERTAIN_BELOW,
    ]
    columns = np.column_stack([nuclei.class_probs.astype(np.float64), *others])
    if not np.isfinite(columns).all():
        raise InferenceFailed("the model gave probabilities that are not finite")
    return columns
