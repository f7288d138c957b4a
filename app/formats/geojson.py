"""How do nuclei leave for QuPath and every other reader of GeoJSON?

A FeatureCollection (RFC 7946) of detections, each with the class, colour and measurements that QuPath's reader takes
over, in pixels of the caller's image. No null occurs inside a feature, no number that is not finite.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import orjson

from app.formats.document import UNCERTAIN_BELOW, RequestContext, members
from app.formats.featuretext import Columns, Fixed, Pieces, features
from app.nuclei.errors import InferenceFailed
from app.nuclei.taxonomy import CLASSES, NAMES
from app.nuclei.types import Float64, Mpp, Nuclei, Segmentation, UInt8

MEDIA_TYPE = "application/geo+json"
SUMMARY_MEDIA_TYPE = "application/json"

COORDINATE_PLACES = 2  # QuPath itself rounds to .01 pixel
CUT = "Cut by a tile edge"  # 1 where a part of the nucleus may lie beyond, on slides whose tiles have no margin
# Name -> decimals, in the order written. `Uncertain` is 1 where the class has a probability below 0.5.
MEASUREMENTS: dict[str, int] = {
    **{f"Probability: {name}": 4 for name in NAMES},
    "Area um^2": 2,
    "Area px^2": 2,
    "Mean diameter um": 2,
    "Mean diameter px": 2,
    "Uncertain": 0,
}
SLIDE_MEASUREMENTS = {**MEASUREMENTS, CUT: 0}


def _classification(name: str, colour: tuple[int, int, int]) -> str:
    return f'"classification":{json.dumps({"name": name, "color": colour}, separators=(",", ":"))},'


_CLASSIFICATIONS = Pieces.of("", *(_classification(c.name, c.colour) for c in CLASSES))  # by class id; 0 has none


def _frame(measurements: Iterable[str]) -> Pieces:
    return Pieces.of(
        '{"type":"Feature","id":"',
        '","geometry":{"type":"Polygon","coordinates":[[',
        ']]},"properties":{"objectType":"detection",',
        *(('"measurements":{' if i == 0 else ",") + f'"{name}":' for i, name in enumerate(measurements)),
        "}}}",
    )


_FRAME = _frame(MEASUREMENTS)
_SLIDE_FRAME = _frame(SLIDE_MEASUREMENTS)


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
    ids = context.nucleus_ids(segmentation)
    text = features(_columns(segmentation.nuclei, ids, measured(segmentation.nuclei, segmentation.mpp)))
    return b'%b,"features":[%b]}' % (head[:-1], text)


def slide_features(nuclei: Nuclei, mpp: Mpp, ids: UInt8, cut: Sequence[bool]) -> bytes:
    """The features of nuclei on a slide, with commas between them and nothing around.

    Args:
        nuclei: positions in pixels of the slide.
        mpp: of the slide.
        ids: (N, 36) uint8, ASCII, see `document.slide_nucleus_id_text`.
        cut: (N,) whether the edge of a tile cuts the nucleus; told by the measurement `CUT`.
    """
    numbers = np.column_stack([measured(nuclei, mpp), np.asarray(cut, np.float64)])
    return features(_columns(nuclei, ids, numbers, SLIDE_MEASUREMENTS, _SLIDE_FRAME))


def encode_summary(segmentation: Segmentation, context: RequestContext) -> bytes:
    """The same object without `type` and `features`, as UTF-8 JSON."""
    return orjson.dumps(members(segmentation, context))


def _columns(
    nuclei: Nuclei, ids: UInt8, numbers: Float64, places: Mapping[str, int] = MEASUREMENTS, frame: Pieces = _FRAME
) -> Columns:
    return Columns(
        ids=ids,
        rings=_coordinates(nuclei.rings.points),
        offsets=np.ascontiguousarray(nuclei.rings.offsets, np.int64),
        kinds=np.ascontiguousarray(nuclei.type, np.uint8),
        numbers=Fixed.of(numbers, np.array(list(places.values()), np.int64)),
        kind_pieces=_CLASSIFICATIONS,
        frame=frame,
    )


def _coordinates(points: Float64) -> Fixed:
    whole = np.rint(points)
    if np.array_equal(whole, points):  # at the model's own scale: no decimals to look for
        return Fixed(whole.astype(np.int64), np.zeros(2, np.int64))
    return Fixed.of(points, np.full(2, COORDINATE_PLACES, np.int64))


def measured(nuclei: Nuclei, mpp: Mpp) -> Float64:
    """(N, K) float64: the columns of `MEASUREMENTS`, not yet rounded.

    Raises:
        InferenceFailed: if one of them is not finite.
    """
    diameter = nuclei.mean_diameter()
    others = [
        nuclei.area * mpp.x * mpp.y,
        nuclei.area,
        diameter * mpp.x if mpp.x == mpp.y else nuclei.mean_diameter(mpp.x, mpp.y),
        diameter,
        nuclei.type_prob < UNCERTAIN_BELOW,
    ]
    columns = np.column_stack([nuclei.class_probs.astype(np.float64), *others])
    if not np.isfinite(columns).all():
        raise InferenceFailed("the model gave probabilities that are not finite")
    return columns
