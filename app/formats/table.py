"""How do nuclei leave for a spreadsheet?

One row per nucleus, comma-separated, decimal point, units in the header. Every figure is taken for all nuclei at once;
perimeter and eccentricity mean what scikit-image's `perimeter_crofton` and `eccentricity` mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
from skimage.color import rgb2hed

from app.formats.document import UNCERTAIN_BELOW, RequestContext
from app.nuclei.taxonomy import BY_ID, NAMES
from app.nuclei.types import Float64, Int32, Mpp, Nuclei, Segmentation, UInt8

MEDIA_TYPE = "text/csv"
UNCLASSIFIED = "unclassified"  # the class of a nucleus where the model saw background alone

# Column -> decimals, behind `id` and `class`.
NUMBERS: dict[str, int] = {
    **{"x": 2, "y": 2, "probability": 4},
    **{f"p_{name}": 4 for name in NAMES},
    **{"area_px": 2, "area_um2": 2, "perimeter_um": 2, "equivalent_diameter_um": 2},
    **{"major_axis_um": 2, "minor_axis_um": 2, "eccentricity": 4, "solidity": 4, "circularity": 4},
    **{"mean_diameter_px": 2, "mean_diameter_um": 2, "haematoxylin_mean": 4, "eosin_mean": 4},
    **{"touches_border": 0, "uncertain": 0},
}
COLUMNS: tuple[str, ...] = ("id", "class", *NUMBERS)
HEADER = f"{','.join(COLUMNS)}\n".encode()


def encode(segmentation: Segmentation, context: RequestContext, image: UInt8 | None = None) -> bytes:
    """The nuclei as CSV.

    Args:
        segmentation: the analysed image.
        context: who asked, and what answered: the ids rest on it.
        image: (H, W, 3) uint8 RGB, the caller's; without it the stain columns stay empty.

    Returns:
        UTF-8, header first (also without nuclei), lines end with a line feed. `id` as in GeoJSON; `touches_border` and
        `uncertain` are 0 or 1.
    """
    figures = numbers(segmentation, image)
    return HEADER + rows(context.nucleus_ids(segmentation), segmentation.nuclei, figures)


def rows(ids: UInt8, nuclei: Nuclei, figures: dict[str, Float64]) -> bytes:
    """One line per nucleus.

    Args:
        ids: (N, 36) uint8, ASCII.
        nuclei: whose classes are named.
        figures: of `figures_of`.
    """
    text = ids.tobytes().decode("ascii")
    cells = [
        [text[at : at + 36] for at in range(0, len(text), 36)],
        class_names(nuclei),
        *(_cells(column, NUMBERS[name]) for name, column in figures.items()),
    ]
    return "".join(f"{','.join(row)}\n" for row in zip(*cells, strict=True)).encode()


def class_names(nuclei: Nuclei) -> list[str]:
    """The class of each nucleus, as written."""
    return [BY_ID[kind].name if kind in BY_ID else UNCLASSIFIED for kind in nuclei.type.tolist()]


def numbers(segmentation: Segmentation, image: UInt8 | None = None) -> dict[str, Float64]:
    """Every column of `NUMBERS`, (N,) float64 each, in order; NaN where there is no figure."""
    count = len(segmentation.nuclei)
    stains = stain_means(image, segmentation.instance_map, count) if image is not None else None
    perimeter_um = perimeter(segmentation.grid, count) * _grid_um(segmentation)
    touches = touches_border(segmentation.grid, count)
    return figures_of(segmentation.nuclei, segmentation.mpp, perimeter_um, touches, stains)


def figures_of(
    nuclei: Nuclei, mpp: Mpp, perimeter_um: Float64, touches: Float64, stains: Float64 | None
) -> dict[str, Float64]:
    """Every column of `NUMBERS`, (N,) float64 each, in order.

    Args:
        nuclei: of one image, or of a tile of a slide.
        mpp: of the pixels in which their positions are.
        perimeter_um: (N,) see `perimeter`.
        touches: (N,) 1 where a part of the nucleus may be missing.
        stains: (N, 2) haematoxylin and eosin; NaN in their place if None.
    """
    area_um2 = nuclei.area * mpp.x * mpp.y
    axes = nuclei.axes(mpp.x, mpp.y)
    haematoxylin, eosin = stains.T if stains is not None else np.full((2, len(nuclei)), np.nan)
    columns = (
        *(*nuclei.centroid.T, nuclei.type_prob, *nuclei.class_probs.T),
        *(nuclei.area, area_um2, perimeter_um, np.sqrt(4 * area_um2 / np.pi)),
        *(*axes.T, eccentricity(axes), solidity(nuclei), circularity(area_um2, perimeter_um)),
        *(nuclei.mean_diameter(), nuclei.mean_diameter(mpp.x, mpp.y), haematoxylin, eosin),
        *(touches, nuclei.type_prob < UNCERTAIN_BELOW),
    )
    return {name: np.asarray(column, np.float64) for name, column in zip(NUMBERS, columns, strict=True)}


def perimeter(grid: Int32, count: int) -> Float64:
    """Perimeter by the Cauchy-Crofton formula in four directions: unbiased over all orientations.

    The length of the ring itself would be a third too long, as it follows pixel edges.

    Args:
        grid: (H, W) int32, 0 background, 1..count; the image's border counts as an edge.
        count: of nuclei.

    Returns:
        (count,) float64, in pixels of `grid`.
    """
    rimmed = np.pad(grid, 1)
    straight = _crossings(rimmed[:, :-1], rimmed[:, 1:], count) + _crossings(rimmed[:-1], rimmed[1:], count)
    oblique = _crossings(rimmed[:-1, :-1], rimmed[1:, 1:], count) + _crossings(rimmed[:-1, 1:], rimmed[1:, :-1], count)
    length: Float64 = np.pi / 8 * (straight + oblique / math.sqrt(2))
    return length


def eccentricity(axes: Float64) -> Float64:
    """(N,) 0 for a circle, towards 1 for a line, from (N, 2) major and minor axis."""
    result: Float64 = np.sqrt(1 - np.minimum(axes[:, 1] / axes[:, 0], 1) ** 2)
    return result


def solidity(nuclei: Nuclei) -> Float64:
    """(N,) area over the area of the ring's convex hull, 0..1."""
    offsets = nuclei.rings.offsets
    origins = np.repeat(nuclei.centroid, np.diff(offsets), axis=0)  # OpenCV wants float32, which is exact near 0 alone
    points = (nuclei.rings.points - origins).astype(np.float32)
    hulls = [cv2.contourArea(cv2.convexHull(points[a:b])) for a, b in pairwise(offsets.tolist())]
    result: Float64 = np.minimum(nuclei.area / np.array(hulls, np.float64), 1)
    return result


def circularity(area: Float64, perimeter: Float64) -> Float64:
    """(N,) 4 pi area / perimeter^2, at most 1: in nuclei of a few pixels the perimeter falls short."""
    result: Float64 = np.minimum(4 * np.pi * area / perimeter**2, 1)
    return result


def stain_means(image: UInt8, instance_map: Int32, count: int) -> Float64:
    """Mean haematoxylin and eosin of each nucleus (Ruifrok and Johnston 2001, as in `skimage.color.rgb2hed`).

    Args:
        image: (H, W, 3) uint8 RGB.
        instance_map: (H, W) int32, 1..count.
        count: of nuclei.

    Returns:
        (count, 2) float64; NaN for a nucleus without a pixel on this grid.
    """
    inside = instance_map > 0
    labels = instance_map[inside]
    stains = rgb2hed(image[inside])[:, :2]  # only pixels of nuclei: the whole image would be five times the work
    sums = np.stack([np.bincount(labels, stain, count + 1)[1:] for stain in stains.T], axis=1)
    pixels = np.bincount(labels, minlength=count + 1)[1:, None]
    means: Float64 = np.divide(sums, pixels, out=np.full((count, 2), np.nan), where=pixels > 0)
    return means


def touches_border(grid: Int32, count: int) -> Float64:
    """(count,) 1 where a nucleus reaches the image's border, and may go on behind it."""
    touching = np.zeros(count + 1)
    for edge in (grid[0], grid[-1], grid[:, 0], grid[:, -1]):
        touching[edge] = 1
    return touching[1:]


def _crossings(a: Int32, b: Int32, count: int) -> Float64:
    differ = a != b
    ends = np.concatenate([a[differ], b[differ]])
    return np.bincount(ends, minlength=count + 1)[1:].astype(np.float64)


def _grid_um(segmentation: Segmentation) -> float:
    area_um2 = segmentation.width * segmentation.height * segmentation.mpp.x * segmentation.mpp.y
    return math.sqrt(area_um2 / segmentation.grid.size)


def _cells(column: Float64, places: int) -> Iterable[str]:
    return ["" if math.isnan(value) else f"{value:.{places}f}" for value in column.tolist()]
