"""How close is a prediction to the truth?

Everything rests on one joint histogram per pair of label maps: how many pixels each true nucleus shares with each
predicted one. Scores and their small epsilons follow the CoNIC challenge's definition (PAPER.md 6), so that numbers
can be compared; where that definition leaves a case open the docstrings say what Karyon answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.nuclei.detection import Detection, LabelMap, TypedPair, detection_f1, detection_f1_per_class
from app.nuclei.taxonomy import CLASSES, NAMES
from app.nuclei.types import Float64, Int64

__all__ = [
    "Detection",
    "Panoptic",
    "PerClass",
    "TypedPair",
    "bpq",
    "class_panoptic",
    "counts_224",
    "detection_f1",
    "detection_f1_per_class",
    "dice",
    "mpq",
    "mpq_plus",
    "panoptic",
    "r2",
]

EPSILON = 1e-6  # of the challenge's code: part of the definition, a perfect score is a hair below 1
PATCH, CROP = 256, 224
DENSE_BINS = 1 << 22  # a joint histogram beyond this many bins is sorted instead


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Panoptic quality of one pair, or of sums over many.

    Attributes:
        tp, fp, fn: nuclei matched at IoU > 0.5, predicted only, true only.
        sum_iou: IoU summed over the matched pairs.
    """

    tp: int
    fp: int
    fn: int
    sum_iou: float

    @property
    def dq(self) -> float:
        """Detection quality, 0..1."""
        return self.tp / (self.tp + 0.5 * self.fp + 0.5 * self.fn + EPSILON)

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched, 0..1."""
        return self.sum_iou / (self.tp + EPSILON)

    @property
    def pq(self) -> float:
        """Panoptic quality, dq x sq; 0 where neither side has a nucleus (see `is_empty`)."""
        return self.dq * self.sq

    @property
    def is_empty(self) -> bool:
        """Neither side has a nucleus, so there was nothing to score."""
        return self.tp + self.fp + self.fn == 0

    def __add__(self, other: Panoptic) -> Panoptic:
        return Panoptic(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.sum_iou + other.sum_iou)


@dataclass(frozen=True, slots=True)
class PerClass:
    """A score per class and their mean.

    Attributes:
        per_class: (C,) float64 in the order of `names`.
        names: class names, taxonomy order.
        mean: mean over the classes, NaN left out.
    """

    per_class: Float64
    names: tuple[str, ...] = NAMES

    @property
    def mean(self) -> float:
        scored = self.per_class[~np.isnan(self.per_class)]
        return float(scored.mean()) if len(scored) else float("nan")


@dataclass(frozen=True, slots=True)
class _Overlap:
    """Two label maps against each other.

    Attributes:
        true_ids, predicted_ids: (N,), (M,) labels present, background left out.
        true, predicted: (K,) for each pair that shares pixels, indices into the ids.
        iou: (K,) of each such pair.
    """

    true_ids: Int64
    predicted_ids: Int64
    true: Int64
    predicted: Int64
    iou: Float64


def panoptic(truth: LabelMap, prediction: LabelMap) -> Panoptic:
    """Panoptic quality at IoU > 0.5, by the rule of the CoNIC challenge.

    Args:
        truth, prediction: (H, W) label maps, 0 background; numbers need be neither dense nor ordered.

    Returns:
        Counts and scores. Empty against empty scores 0, as in the challenge's code, and is marked `is_empty` so that a
        mean can leave it out. A map without background is scored like any other: label 0 alone is background (the
        challenge's code takes the lowest label for it, whatever it is).

    Raises:
        ValueError: if the maps differ in shape.
    """
    return _scored(_overlap(truth, prediction))


def mpq_plus(pairs: Iterable[TypedPair]) -> PerClass:
    """mPQ+: counts and IoU summed per class over all images, PQ per class, mean over the six classes.

    Args:
        pairs: (truth_instances, truth_types, predicted_instances, predicted_types), (H, W) each. A nucleus takes part
            in a class with those of its pixels that the type map gives to it.

    Returns:
        PQ per class; 0 for a class that occurs nowhere, as in the challenge's code.
    """
    return PerClass(np.array([total.pq for total in class_panoptic(pairs)]))


def class_panoptic(pairs: Iterable[TypedPair]) -> list[Panoptic]:
    """The sums behind `mpq_plus`, one per class in taxonomy order."""
    totals = [Panoptic(0, 0, 0, 0.0)] * len(CLASSES)
    for pair in pairs:
        totals = [total + part for total, part in zip(totals, _by_class(*pair), strict=True)]
    return totals


def mpq(pairs: Iterable[TypedPair]) -> float:
    """mPQ as CellViT reports it: per image the mean over the classes that its truth has, then the mean over images.

    Returns:
        0..1; NaN if no image has a true nucleus.
    """
    per_image = []
    for pair in pairs:
        present = [part.pq for part in _by_class(*pair) if part.tp + part.fn]
        if present:
            per_image.append(float(np.mean(present)))
    return float(np.mean(per_image)) if per_image else float("nan")


def bpq(pairs: Iterable[tuple[LabelMap, LabelMap]]) -> float:
    """bPQ as CellViT reports it: PQ without classes per image with a true nucleus, then the mean; NaN if none has."""
    scores = [score.pq for score in (panoptic(*pair) for pair in pairs) if score.tp + score.fn]
    return float(np.mean(scores)) if scores else float("nan")


def r2(truth_counts: npt.ArrayLike, predicted_counts: npt.ArrayLike) -> PerClass:
    """Coefficient of determination of nuclei counts per class over images.

    Args:
        truth_counts, predicted_counts: (images, classes).

    Returns:
        1 - residual / total sum of squares per class. Where the true counts do not vary: 1 if all are met, else 0
        (scikit-learn's rule, which the challenge uses); so too for a single image. NaN without images.

    Raises:
        ValueError: if the shapes differ or are not (images, classes).
    """
    truth, prediction = np.asarray(truth_counts, np.float64), np.asarray(predicted_counts, np.float64)
    if truth.ndim != 2 or truth.shape != prediction.shape:
        raise ValueError(f"counts must be (images, classes) alike, got {truth.shape} and {prediction.shape}")
    if not len(truth):
        return PerClass(np.full(truth.shape[1], np.nan), _names(truth.shape[1]))
    residual = ((truth - prediction) ** 2).sum(axis=0)
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    varies = total > 0
    score = np.where(varies, 1 - residual / np.where(varies, total, 1), (residual == 0).astype(np.float64))
    return PerClass(score, _names(truth.shape[1]))


def counts_224(instances: LabelMap, types: LabelMap) -> Int64:
    """Nuclei per class in the central 224 x 224 of a 256 x 256 patch; any pixel there counts.

    Args:
        instances, types: (256, 256); a nucleus counts for each class that its pixels in the crop have.

    Returns:
        (6,) int64, taxonomy order. Pixels with a class but outside every nucleus count as one more of that class, as in
        the challenge's code; maps of one segmentation have none.

    Raises:
        ValueError: if the maps are not 256 x 256.
    """
    if instances.shape != (PATCH, PATCH) or types.shape != instances.shape:
        raise ValueError(f"composition is defined for {PATCH} x {PATCH}, got {instances.shape} and {types.shape}")
    edge = (PATCH - CROP) // 2
    inside = (slice(edge, edge + CROP),) * 2
    ids, kinds = instances[inside].ravel().astype(np.int64), types[inside].ravel().astype(np.int64)
    span = len(CLASSES) + 1
    seen = np.unique((ids * span + kinds)[kinds > 0])
    return np.bincount(seen % span, minlength=span)[1:].astype(np.int64)


def dice(truth: npt.NDArray[np.generic], prediction: npt.NDArray[np.generic]) -> float:
    """Dice of nucleus against background: 2 |A and B| / (|A| + |B|); 1 if both are empty.

    Args:
        truth, prediction: (H, W) label or boolean maps; whatever is not 0 is nucleus.
    """
    a, b = truth != 0, prediction != 0
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def _names(classes: int) -> tuple[str, ...]:
    return NAMES if classes == len(NAMES) else tuple(str(i + 1) for i in range(classes))


def _by_class(
    truth: LabelMap, truth_types: LabelMap, prediction: LabelMap, predicted_types: LabelMap
) -> list[Panoptic]:
    span = len(CLASSES) + 1
    overlap = _overlap(_split(truth, truth_types, span), _split(prediction, predicted_types, span))
    return [_scored(overlap, kind.id, span) for kind in CLASSES]


def _split(instances: LabelMap, types: LabelMap, span: int) -> Int64:
    """Labels whose remainder by `span` is the class: the pixels of one nucleus in one class are one label."""
    return np.where((instances > 0) & (types > 0), instances.astype(np.int64) * span + types, 0)


def _scored(overlap: _Overlap, kind: int = 0, span: int = 1) -> Panoptic:
    """Counts of those labels whose remainder by `span` is `kind`."""
    true_of_kind, found_of_kind = overlap.true_ids % span == kind, overlap.predicted_ids % span == kind
    hits = overlap.iou[(overlap.iou > 0.5) & true_of_kind[overlap.true] & found_of_kind[overlap.predicted]]
    n_true, n_found = np.count_nonzero(true_of_kind), np.count_nonzero(found_of_kind)
    return Panoptic(len(hits), int(n_found) - len(hits), int(n_true) - len(hits), float(hits.sum()))


def _overlap(truth: LabelMap, prediction: LabelMap) -> _Overlap:
    """IoU of every pair that shares pixels, from one joint histogram."""
    if truth.shape != prediction.shape:
        raise ValueError(f"maps of different shape: {truth.shape} and {prediction.shape}")
    (a, true_ids), (b, predicted_ids) = _dense(truth), _dense(prediction)
    rows, cols = len(true_ids) + 1, len(predicted_ids) + 1
    if rows * cols <= max(DENSE_BINS, a.size):
        joint = np.bincount(a * cols + b, minlength=rows * cols)
        keys = np.flatnonzero(joint)
        shared = joint[keys]
    else:
        keys, shared = np.unique(a * cols + b, return_counts=True)
    true, predicted = np.divmod(keys, cols)
    area_a = np.bincount(true, weights=shared, minlength=rows)
    area_b = np.bincount(predicted, weights=shared, minlength=cols)
    iou = shared / (area_a[true] + area_b[predicted] - shared)
    both = (true > 0) & (predicted > 0)
    return _Overlap(true_ids, predicted_ids, true[both] - 1, predicted[both] - 1, iou[both])


def _dense(labels: LabelMap) -> tuple[Int64, Int64]:
    """Labels renumbered 0, 1..N in ascending order, flat; and the (N,) labels they stand for."""
    flat = labels.ravel().astype(np.int64)
    if flat.max(initial=0) > 8 * flat.size + 1024:  # a table by label would be larger than a sort is slow
        ids, index = np.unique(np.append(flat, 0), return_inverse=True)
        return index[:-1], ids[1:]
    present = (np.bincount(flat, minlength=1) > 0).astype(np.int64)
    present[0] = 0
    return np.cumsum(present)[flat], np.flatnonzero(present).astype(np.int64)
