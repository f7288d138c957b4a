"""How do nuclei leave for programs that read the JSON of hover_net?

The one format with contours through pixel centres. `bbox` is ((row, column) of the first pixel, (row, column) behind
the last); everything else is (x, y). Coordinates are pixel indices, so a centroid is half a pixel less than in GeoJSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import orjson
from scipy import ndimage

from app.formats.document import RequestContext, members
from app.nuclei.types import Float64, Int32, Mpp, Nuclei, Segmentation

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
    nuc = {str(i): entry for i, entry in enumerate(entries(segmentation.instance_map, segmentation.nuclei), 1)}
    document: dict[str, Any] = {"mag": mag(segmentation.mpp), "nuc": nuc, "karyon": members(segmentation, context)}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def mag(mpp: Mpp) -> float:
    """Magnification as hover_net understands it: 10 / mpp."""
    return round(10 / math.sqrt(mpp.x * mpp.y), 3)


def entries(instance_map: Int32, nuclei: Nuclei, origin: tuple[int, int] = (0, 0)) -> Iterator[dict[str, Any]]:
    """What is written of each nucleus.

    Args:
        instance_map: (H, W) int32, i + 1 where nucleus i lies.
        nuclei: in the pixels of that map, or of a slide on which it lies.
        origin: (x, y) of the map's first pixel.
    """
    rows = zip(
        _boxes(instance_map, nuclei.centroid - origin),
        np.round(nuclei.centroid - 0.5, 2).tolist(),
        np.round(nuclei.type_prob.astype(np.float64), 4).tolist(),
        nuclei.type.tolist(),
        strict=True,
    )
    for i, (box, centroid, probability, kind) in enumerate(rows, 1):
        points = contour(instance_map, i, box) + np.array(origin, np.int32)
        bbox = [points.min(axis=0)[::-1].tolist(), (points.max(axis=0)[::-1] + 1).tolist()]
        yield {"bbox": bbox, "centroid": centroid, "contour": points, "type_prob": probability, "type": kind}


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


def _boxes(instance_map: Int32, centroids: Float64) -> list[Box]:
    found = ndimage.find_objects(instance_map, max_label=len(centroids))
    return [
        box if box is not None else _pixel(centroid, instance_map.shape)
        for box, centroid in zip(found, centroids, strict=True)
    ]


def _pixel(centroid: Float64, shape: tuple[int, ...]) -> Box:
    row = min(max(int(centroid[1]), 0), shape[0] - 1)
    col = min(max(int(centroid[0]), 0), shape[1] - 1)
    return slice(row, row + 1), slice(col, col + 1)
