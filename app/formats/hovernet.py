"""How do nuclei leave for programs that read the JSON of hover_net?

The one format with contours through pixel centres. `bbox` is ((row, column) of the first pixel, (row, column) behind
the last); everything else is (x, y). Coordinates are pixel indices, so a centroid is half a pixel less than in GeoJSON.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import orjson
from scipy import ndimage

from app.formats.document import RequestContext, members
from app.nuclei.types import Float64, Int32, Segmentation

MEDIA_TYPE = "application/vnd.hovernet+json"

Box = tuple[slice, slice]


def encode(segmentation: Segmentation, context: RequestContext) -> bytes:
    """The nuclei as hover_net writes them, with Karyon's own members under the further key `karyon`.

    Args:
        segmentation: the analysed image; contours and boxes come from its map on the caller's grid.
        context: who asked, and what answered.

    Returns:
        UTF-8 JSON `{"mag", "nuc": {"1": {"bbox", "centroid", "contour", "type_prob", "type"}, ...}, "karyon"}`, `mag`
        being 10 / mpp. A contour is open and, filled by OpenCV, gives the mask of the nucleus again; its box holds it
        exactly. Of a nucleus that the coarser grid of the caller tears apart the largest part is written, and of one
        that falls between its pixels the pixel at its centroid.
        `type_prob` is the calibrated probability of the class, not a share of pixels.
    """
    nuclei, mpp = segmentation.nuclei, math.sqrt(segmentation.mpp.x * segmentation.mpp.y)
    rows = zip(
        _boxes(segmentation),
        np.round(nuclei.centroid - 0.5, 2).tolist(),
        np.round(nuclei.type_prob.astype(np.float64), 4).tolist(),
        nuclei.type.tolist(),
        strict=True,
    )
    nuc = {}
    for i, (box, centroid, probability, kind) in enumerate(rows, 1):
        points = contour(segmentation.instance_map, i, box)
        bbox = [points.min(axis=0)[::-1].tolist(), (points.max(axis=0)[::-1] + 1).tolist()]
        nuc[str(i)] = {"bbox": bbox, "centroid": centroid, "contour": points, "type_prob": probability, "type": kind}
    document: dict[str, Any] = {"mag": round(10 / mpp, 3), "nuc": nuc, "karyon": members(segmentation, context)}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def contour(instance_map: Int32, number: int, box: Box) -> npt.NDArray[np.int32]:
    """Boundary pixels of one nucleus.

    Args:
        instance_map: (H, W) int32.
        number: which nucleus.
        box: rows and columns that hold all of it.

    Returns:
        (K, 2) int32, (x, y) indices of pixels, open, K >= 3: hover_net drops shorter ones, so a last point is repeated.
    """
    mask = (instance_map[box] == number).astype(np.uint8)
    # Without a rim OpenCV 5 returns points outside the image.
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    parts, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not parts:
        points = np.zeros((1, 2), np.int32)  # nothing of it on this grid
    else:
        points = max(parts, key=cv2.contourArea).reshape(-1, 2).astype(np.int32) - 1
    missing = max(0, 3 - len(points))
    points = np.concatenate([points, np.repeat(points[-1:], missing, axis=0)])
    return np.ascontiguousarray(points + np.array([box[1].start, box[0].start], np.int32))


def _boxes(segmentation: Segmentation) -> list[Box]:
    found = ndimage.find_objects(segmentation.instance_map, max_label=len(segmentation.nuclei))
    return [
        box if box is not None else _pixel(centroid, segmentation)
        for box, centroid in zip(found, segmentation.nuclei.centroid, strict=True)
    ]


def _pixel(centroid: Float64, segmentation: Segmentation) -> Box:
    col = min(max(int(centroid[0]), 0), segmentation.width - 1)
    row = min(max(int(centroid[1]), 0), segmentation.height - 1)
    return slice(row, row + 1), slice(col, col + 1)
