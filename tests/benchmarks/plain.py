"""How would research code separate and measure nuclei?

The procedure of PAPER.md 5, step by step with scikit-image, SciPy and OpenCV, and a whole-image mask per nucleus for
its statistics: the yardstick of `bench_separation.py`, written for reading and not for speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

Array = npt.NDArray[np.generic]


@dataclass
class PlainNucleus:
    """One instance as research code keeps it."""

    box: npt.NDArray[np.int64]
    centroid: npt.NDArray[np.float64]
    contour: npt.NDArray[np.int32]
    area: int
    type: int
    type_prob: float


def normalised(values: Array) -> npt.NDArray[np.float32]:
    """Values stretched to 0..1 over the whole image, float32."""
    return cv2.normalize(values, None, alpha=0, beta=1, norm_type=cv2.NORM_MINMAX, dtype=cv2.CV_32F)  # type: ignore[call-overload, no-any-return]


def separate(np_prob: Array, hv: Array) -> npt.NDArray[np.int32]:
    """(H, W) labels from maps at 0.25 mpp: mask, Sobel edges, markers, watershed."""
    labelled, _ = ndimage.label(np_prob >= 0.5)
    mask = (remove_small_objects(labelled, max_size=9) > 0).astype(np.int32)

    across, down = normalised(hv[..., 0]), normalised(hv[..., 1])
    across = 1 - normalised(cv2.Sobel(across, cv2.CV_64F, 1, 0, ksize=21))
    down = 1 - normalised(cv2.Sobel(down, cv2.CV_64F, 0, 1, ksize=21))
    edge = np.maximum(across, down) - (1 - mask)
    edge[edge < 0] = 0

    energy = -cv2.GaussianBlur((1.0 - edge) * mask, (3, 3), 0)
    marker = mask - (edge >= 0.4).astype(np.int32)
    marker[marker < 0] = 0
    marker = ndimage.binary_fill_holes(marker).astype(np.uint8)
    marker = cv2.morphologyEx(marker, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    marker, _ = ndimage.label(marker)
    marker = remove_small_objects(marker, max_size=9)
    return watershed(energy, markers=marker, mask=mask).astype(np.int32)  # type: ignore[no-any-return]


def measure(instance_map: npt.NDArray[np.int32], type_map: Array) -> list[PlainNucleus]:
    """Box, contour, centroid and voted class of each instance, one whole-image mask at a time."""
    nuclei = []
    for number in np.unique(instance_map)[1:]:
        mask = instance_map == number
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, bottom, left, right = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
        crop = mask[top:bottom, left:right].astype(np.uint8)
        moments = cv2.moments(crop)
        centroid = np.array([moments["m10"], moments["m01"]]) / moments["m00"] + (left, top)
        contours, _ = cv2.findContours(crop, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        contour = contours[0][:, 0] + np.array([left, top], np.int32)
        kind, share = vote(type_map[top:bottom, left:right][crop > 0])
        box = np.array([[top, left], [bottom, right]])
        nuclei.append(PlainNucleus(box, centroid, contour, int(moments["m00"]), kind, share))
    return nuclei


def vote(types: Array) -> tuple[int, float]:
    """Most frequent class and its share; the runner-up where background wins and another class has votes."""
    kinds, counts = np.unique(types, return_counts=True)
    ranking = sorted(zip(counts.tolist(), kinds.tolist(), strict=True), key=lambda pair: -pair[0])
    if ranking[0][1] == 0 and len(ranking) > 1:
        ranking = ranking[1:]
    return ranking[0][1], ranking[0][0] / len(types)


def run(np_prob: Array, hv: Array, type_map: Array) -> tuple[npt.NDArray[np.int32], list[PlainNucleus]]:
    """Maps at 0.5 mpp in; instances on the same grid, and their measurements, out.

    Args:
        np_prob: (H, W) float32.
        hv: (H, W, 2) float32.
        type_map: (H, W) uint8, most probable class per pixel.
    """
    size = (np_prob.shape[1] * 2, np_prob.shape[0] * 2)
    labels = separate(cv2.resize(np_prob, size), cv2.resize(hv, size))
    kinds = cv2.resize(type_map, size, interpolation=cv2.INTER_NEAREST)
    return labels[::2, ::2], measure(labels, kinds)
