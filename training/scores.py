"""How good are predictions over a set of images, and how sure is each figure?

Each image is reduced to counts that add up, so that a bootstrap over images costs a few sums per resample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.nuclei import metrics
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Float64, Int32, UInt8

RADIUS = 6
"""Pixels at 0.5 mpp within which a centroid is found (3 um)."""
RESAMPLES = 2000
WHOLE_IMAGE = ("mpq_plus", "bpq", "dice", "detection_f1")
"""Scores that need no corner patches."""
PAIRED = ("mpq_plus", "bpq", "dice", "detection_f1", "r2_common")
"""What two models are compared by."""


@dataclass(frozen=True, slots=True)
class ImageScore:
    """What one image adds to every score.

    Attributes:
        name: of the image.
        binary: (4,) tp, fp, fn, sum of IoU without classes.
        classes: (6, 4) the same per class.
        dice: (2,) twice the common pixels, pixels of both.
        detection: (3,) tp, fp, fn of centroids.
        detection_classes: (6, 3) the same per class.
        counts: (P, 2, 6) nuclei in the central 224x224 of each 256x256 corner patch, true and predicted.
    """

    name: str
    binary: Float64
    classes: Float64
    dice: Float64
    detection: Float64
    detection_classes: Float64
    counts: Float64

    @property
    def bpq(self) -> float:
        """Panoptic quality of this image without classes."""
        return float(_pq(self.binary))


Maps = tuple[Int32, UInt8]
"""Instances and classes of one image, (H, W) each."""


def score_image(name: str, truth: Maps, prediction: Maps, corners: Sequence[tuple[Maps, Maps]]) -> ImageScore:
    """Compare one image, and its corner patches segmented on their own, with the truth."""
    binary = metrics.panoptic(truth[0], prediction[0])
    classes = metrics.class_panoptic([(*truth, *prediction)])
    detection = metrics.detection_f1(truth[0], prediction[0], RADIUS)
    detection_classes = metrics.detection_f1_per_class((*truth, *prediction), RADIUS)
    a, b = truth[0] > 0, prediction[0] > 0
    counts = [[metrics.counts_224(*true), metrics.counts_224(*found)] for true, found in corners]
    return ImageScore(
        name,
        np.array([binary.tp, binary.fp, binary.fn, binary.sum_iou], float),
        np.array([[c.tp, c.fp, c.fn, c.sum_iou] for c in classes], float),
        np.array([2 * (a & b).sum(), a.sum() + b.sum()], float),
        np.array([detection.tp, detection.fp, detection.fn], float),
        np.array([[d.tp, d.fp, d.fn] for d in detection_classes], float),
        np.array(counts, float).reshape(len(corners), 2, len(NAMES)),
    )


def summarise(images: Sequence[ImageScore], seed: int = 1) -> dict[str, Any]:
    """Every score of the protocol with its 95 % interval from a bootstrap over images.

    Returns:
        name -> {"value", "low", "high"}; per-class scores are name -> class -> the same. A class that is nowhere, in
        truth or prediction, scores 0; so does the count of one that is not in the truth.
    """
    rng = np.random.default_rng(seed)
    everyone = np.arange(len(images))
    draws = [rng.choice(everyone, len(images)) for _ in range(RESAMPLES)]
    return {name: _interval(score, images, everyone, draws) for name, score in SCORES.items()}


def without_one(images: Sequence[ImageScore], name: str) -> list[dict[str, Any]]:
    """A score without each of the images in turn, lowest first: {"name" of the image, "value"}."""
    rows = []
    for index, image in enumerate(images):
        others = [i for i in range(len(images)) if i != index]
        rows.append({"name": image.name, "value": float(np.mean(SCORES[name](images, others)))})
    return sorted(rows, key=lambda row: row["value"])


def compare(
    first: Sequence[ImageScore], second: Sequence[ImageScore], names: Sequence[str] = PAIRED, seed: int = 1
) -> dict[str, dict[str, float]]:
    """Paired bootstrap over the same images: by how much the first is above the second, with its 95 % interval.

    Raises:
        ValueError: the two are not of the same images in the same order.
    """
    if [i.name for i in first] != [i.name for i in second]:
        raise ValueError("a paired comparison needs the same images in the same order")
    rng = np.random.default_rng(seed)
    everyone = np.arange(len(first))
    draws = [rng.choice(everyone, len(first)) for _ in range(RESAMPLES)]
    result = {}
    for name in names:
        gaps = [float(np.mean(SCORES[name](first, d)) - np.mean(SCORES[name](second, d))) for d in (everyone, *draws)]
        low, high = np.nanpercentile(gaps[1:], [2.5, 97.5])
        result[name] = {"value": gaps[0], "low": float(low), "high": float(high)}
    return result


Score = Callable[[Sequence[ImageScore], Any], Float64]


def _sum(images: Sequence[ImageScore], which: Any, column: str) -> Float64:
    total: Float64 = np.stack([getattr(images[i], column) for i in which]).sum(0)
    return total


def _pq(counts: Float64) -> Float64:
    tp, fp, fn, iou = np.moveaxis(counts, -1, 0)
    e = metrics.EPSILON
    quality: Float64 = tp / (tp + 0.5 * fp + 0.5 * fn + e) * iou / (tp + e)
    return quality


def _f1(counts: Float64) -> Float64:
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    f1: Float64 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
    return f1


def _dice(images: Sequence[ImageScore], which: Any) -> Float64:
    both, total = _sum(images, which, "dice")
    return np.asarray(both / total if total else 1.0)


def _bpq(images: Sequence[ImageScore], which: Any) -> Float64:
    return np.asarray(np.mean([images[i].bpq for i in which]))


def _r2(images: Sequence[ImageScore], which: Any) -> Float64:
    counts = np.concatenate([images[i].counts for i in which])
    return metrics.r2(counts[:, 0], counts[:, 1]).per_class if len(counts) else np.full(len(NAMES), np.nan)


def _count_ratio(images: Sequence[ImageScore], which: Any) -> Float64:
    """Nuclei found by nuclei there, per class; NaN where there are none."""
    tp, fp, fn = np.moveaxis(_sum(images, which, "detection_classes"), -1, 0)
    there = tp + fn
    ratio: Float64 = np.divide(tp + fp, there, out=np.full(len(NAMES), np.nan), where=there > 0)
    return ratio


COMMON = [NAMES.index(n) for n in ("epithelial", "lymphocyte", "plasma", "connective")]
SCORES: dict[str, Score] = {
    "mpq_plus": lambda s, w: _pq(_sum(s, w, "classes")).mean(),
    "bpq": _bpq,
    "dice": _dice,
    "detection_f1": lambda s, w: _f1(_sum(s, w, "detection")),
    "r2": lambda s, w: _r2(s, w).mean(),
    "r2_common": lambda s, w: _r2(s, w)[COMMON].mean(),
    "pq_per_class": lambda s, w: _pq(_sum(s, w, "classes")),
    "detection_f1_per_class": lambda s, w: _f1(_sum(s, w, "detection_classes")),
    "r2_per_class": _r2,
    "count_ratio_per_class": _count_ratio,
}


def _interval(score: Score, images: Sequence[ImageScore], everyone: Any, draws: Sequence[Any]) -> dict[str, Any]:
    value = np.nan_to_num(np.asarray(score(images, everyone)))
    sampled = np.asarray([score(images, d) for d in draws])
    nowhere = np.isnan(sampled).all(0)
    low, high = np.nanpercentile(np.where(nowhere, 0.0, sampled), [2.5, 97.5], axis=0)
    if value.ndim == 0:
        return {"value": float(value), "low": float(low), "high": float(high)}
    rows = zip(NAMES, value, low, high, strict=True)
    return {n: {"value": float(v), "low": float(lo), "high": float(hi)} for n, v, lo, hi in rows}
