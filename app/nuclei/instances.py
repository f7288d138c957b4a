"""What is each nucleus: where, how large, of which class, and how sure?

One pass over the label map sums everything the table needs; `tidy` (see `tidying`) comes before, so that counts,
table and rings speak of the same nuclei.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.nuclei.jit import HAVE_NUMBA, fit_for_kernel
from app.nuclei.rings import simplify, trace, trace_runs
from app.nuclei.runs import Found, label_runs
from app.nuclei.tally import conclude, tally
from app.nuclei.tidying import tidied, tidy
from app.nuclei.types import Float32, Float64, Int32, Int64, Nuclei, UInt8

__all__ = ["describe", "simplify", "tidied", "tidy", "trace"]


class Sums(NamedTuple):
    """Sums over the pixels of each of N instances.

    Attributes:
        origin: (N, 2) int64, row and column of the first pixel; the other positions are relative to it.
        box: (N, 4) int64, x0, y0, x1, y1 in pixels of the map, far side exclusive.
        moments: (N, 6) int64: pixels, x, y, xx, yy, xy of pixel indices.
        votes: (N, C) int64, pixels by most probable class, the lowest on ties.
        probs: (N, C) float64, class probabilities.
    """

    origin: Int64
    box: Int64
    moments: Int64
    votes: Int64
    probs: Float64


def describe(
    instance_map: Int32,
    type_prob: npt.NDArray[np.floating],
    scale: tuple[float, float] = (1.0, 1.0),
    compiled: bool = HAVE_NUMBA,
    runs: Found | None = None,
) -> Nuclei:
    """Table of the nuclei of one label map.

    The class is the one with most votes among its pixels' most probable classes, the lowest on ties; background votes
    count only against nothing: with any other vote there is, the best of the others is taken (PAPER.md 4), and without
    one the class of the highest mean probability, so that no nucleus is classless.

    Args:
        instance_map: (H, W) int32, 0 background, 1..N, every number present, as `tidy` returns it.
        type_prob: (H, W, C) float16 or float32, channel 0 background; looked at inside nuclei only.
        scale: (x, y), what a pixel's width and height are in the caller's pixels.
        compiled: by numba kernels, or by NumPy.
        runs: of the map, as `tidied` returns them.

    Returns:
        Columns in the caller's pixels, in the order of the numbers. `class_probs` is the mean over the nucleus' pixels
        without background, brought to sum 1 (uniform if all are 0); `type_prob` is that of the class taken.

    Raises:
        ValueError: if the maps differ in size, or a number is negative.
    """
    if instance_map.ndim != 2 or type_prob.ndim != 3 or type_prob.shape[:2] != instance_map.shape:
        raise ValueError(f"maps of different size: instances, types are {instance_map.shape} and {type_prob.shape}")
    labels = fit_for_kernel(instance_map, np.int32)
    step = (float(scale[0]), float(scale[1]))
    if compiled:
        return _columns_compiled(labels, runs or label_runs(labels), type_prob, step)
    return _columns_numpy(labels, type_prob, step)


def _columns_compiled(
    labels: Int32, found: Found, type_prob: npt.NDArray[np.floating], scale: tuple[float, float]
) -> Nuclei:
    runs, count = found
    classes = type_prob.shape[2]
    sums = _empty_sums(count, classes)
    tally(*runs, fit_for_kernel(type_prob, np.float32), *sums)
    kind, sure, each = (
        np.empty(count, np.uint8),
        np.empty(count, np.float32),
        np.empty((count, classes - 1), np.float32),
    )
    centroid, area, covariance = np.empty((count, 2)), np.empty(count), np.empty((count, 3))
    conclude(
        sums.origin, sums.moments, sums.votes, sums.probs, *scale, kind, sure, each, centroid, area, covariance
    )  # fmt: skip
    return Nuclei(
        id=np.arange(1, count + 1, dtype=np.int32),
        type=kind,
        type_prob=sure,
        class_probs=each,
        centroid=centroid,
        bbox=sums.box * np.array([*scale, *scale]),
        area=area,
        covariance=covariance,
        rings=trace_runs(labels, runs, count, scale),
    )


def _columns_numpy(labels: Int32, type_prob: npt.NDArray[np.floating], scale: tuple[float, float]) -> Nuclei:
    count = int(labels.max(initial=0))
    sums = _sum_numpy(labels, type_prob, count)
    kind, probs = _classify(sums)
    sx, sy = scale
    return Nuclei(
        id=np.arange(1, count + 1, dtype=np.int32),
        type=kind,
        type_prob=probs[np.arange(count), kind.astype(np.intp) - 1],
        class_probs=probs,
        centroid=_centroid(sums) * (sx, sy),
        bbox=sums.box * np.array([*scale, *scale]),
        area=sums.moments[:, 0].astype(np.float64) * (sx * sy),
        covariance=_covariance(sums.moments) * (sx * sx, sy * sy, sx * sy),
        rings=trace(labels, count, scale, compiled=False),
    )


def _empty_sums(count: int, classes: int) -> Sums:
    return Sums(
        np.full((count, 2), -1, np.int64),
        np.zeros((count, 4), np.int64),
        np.zeros((count, 6), np.int64),
        np.zeros((count, classes), np.int64),
        np.zeros((count, classes), np.float64),
    )


def _centroid(sums: Sums) -> Float64:
    """(N, 2) x, y of the centre of mass in pixels of the map, from the corner of the first pixel."""
    centre: Float64 = sums.moments[:, 1:3] / sums.moments[:, :1] + sums.origin[:, ::-1] + 0.5
    return centre


def _covariance(moments: Int64) -> Float64:
    """(N, 3) xx, yy, xy about the centroid; each pixel is a unit square, which adds 1/12 to xx and yy."""
    n, x, y, xx, yy, xy = moments.T.astype(np.float64)
    x, y = x / n, y / n
    return np.stack([xx / n - x * x + 1 / 12, yy / n - y * y + 1 / 12, xy / n - x * y], axis=1)


def _classify(sums: Sums) -> tuple[UInt8, Float32]:
    """(N,) class ids and (N, C - 1) probabilities without background."""
    probs = sums.probs[:, 1:]
    total = probs.sum(axis=1, keepdims=True)
    probs = np.where(total > 0, probs / np.where(total > 0, total, 1), 1 / max(probs.shape[1], 1))
    voted = sums.votes[:, 1:].any(axis=1)
    kind = 1 + np.where(voted, sums.votes[:, 1:].argmax(axis=1), probs.argmax(axis=1))
    return kind.astype(np.uint8), probs.astype(np.float32)


def _sum_numpy(labels: Int32, type_prob: npt.NDArray[np.floating], count: int) -> Sums:
    sums = _empty_sums(count, type_prob.shape[2])
    rows, cols = np.nonzero(labels)
    index = labels[rows, cols] - 1
    _, first = np.unique(index, return_index=True)
    sums.origin[:] = np.stack([rows[first], cols[first]], axis=1)
    sums.box[:, :2], sums.box[:, 2:] = np.iinfo(np.int64).max, 0
    np.minimum.at(sums.box, index, np.stack([cols, rows, cols, rows], axis=1))
    far = np.zeros((count, 2), np.int64)
    np.maximum.at(far, index, np.stack([cols + 1, rows + 1], axis=1))
    sums.box[:, 2:] = far
    x, y = cols - sums.origin[index, 1], rows - sums.origin[index, 0]
    for k, power in enumerate((np.ones_like(x), x, y, x * x, y * y, x * y)):
        np.add.at(sums.moments[:, k], index, power)
    probs = type_prob[rows, cols].astype(np.float32)
    np.add.at(sums.votes, (index, probs.argmax(axis=1)), 1)
    np.add.at(sums.probs, index, probs.astype(np.float64))
    return sums
