"""How many nuclei were found, by their centres alone?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Float64, Int64

LabelMap = npt.NDArray[np.integer[Any]]
TypedPair = tuple[LabelMap, LabelMap, LabelMap, LabelMap]
"""(truth_instances, truth_types, predicted_instances, predicted_types), (H, W) each."""


@dataclass(frozen=True, slots=True)
class Detection:
    """Centroids matched one to one: tp matched, fp predicted only, fn true only."""

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float:
        """Share of the predicted that are true; 0 if none was predicted."""
        return self.tp / (self.tp + self.fp) if self.tp else 0.0

    @property
    def recall(self) -> float:
        """Share of the true that were found; 0 if there was none."""
        return self.tp / (self.tp + self.fn) if self.tp else 0.0

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn); 0 where neither side has a nucleus."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp else 0.0

    def __add__(self, other: Detection) -> Detection:
        return Detection(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def detection_f1(truth: LabelMap, prediction: LabelMap, radius: float) -> Detection:
    """Detection: centroids matched one to one within `radius` pixels, as many as possible, then as close as possible.

    Args:
        truth, prediction: (H, W) label maps.
        radius: pixels; 12 at 0.25 mpp, 6 at 0.5 mpp are usual.
    """
    true, found = centroids(truth)[1], centroids(prediction)[1]
    matched = len(_match(true, found, radius)[0])
    return Detection(matched, len(found) - matched, len(true) - matched)


def detection_f1_per_class(pair: TypedPair, radius: float) -> list[Detection]:
    """Detection per class in taxonomy order: nuclei are matched without regard to class, then classes compared.

    A matched pair of equal class is a hit of it; of different class, a miss of the true and a false alarm of the
    predicted one. A nucleus' class is the most frequent one of its pixels, background left out.
    """
    truth, truth_types, prediction, predicted_types = pair
    true_ids, true = centroids(truth)
    found_ids, found = centroids(prediction)
    rows, cols = _match(true, found, radius)
    true_kind = _kinds(truth, truth_types, true_ids)
    found_kind = _kinds(prediction, predicted_types, found_ids)
    same = true_kind[rows] == found_kind[cols]
    span = len(CLASSES) + 1
    tp = np.bincount(true_kind[rows][same], minlength=span)
    n_true, n_found = np.bincount(true_kind, minlength=span), np.bincount(found_kind, minlength=span)
    return [Detection(int(tp[c.id]), int(n_found[c.id] - tp[c.id]), int(n_true[c.id] - tp[c.id])) for c in CLASSES]


def centroids(labels: LabelMap) -> tuple[Int64, Float64]:
    """Numbers (N,) present in a label map, ascending, and their centroids (N, 2) as (row, col) of pixel indices."""
    rows, cols = np.nonzero(labels)
    ids, index = np.unique(labels[rows, cols], return_inverse=True)
    area = np.bincount(index, minlength=len(ids)).astype(np.float64)
    sums = [np.bincount(index, weights=axis, minlength=len(ids)) for axis in (rows, cols)]
    return ids.astype(np.int64), np.stack(sums, axis=1) / area[:, None]


def _match(true: Float64, found: Float64, radius: float) -> tuple[Int64, Int64]:
    """Optimal one-to-one assignment of points within `radius`: indices into both, equal in length."""
    distance = cdist(true, found)
    # A pair out of reach costs more than all pairs in reach together, so no match is given up for closeness.
    beyond = (radius + 1) * (min(distance.shape) + 1)
    rows, cols = linear_sum_assignment(np.where(distance <= radius, distance, beyond))
    near = distance[rows, cols] <= radius
    return rows[near].astype(np.int64), cols[near].astype(np.int64)


def _kinds(instances: LabelMap, types: LabelMap, ids: Int64) -> Int64:
    """Most frequent class of each nucleus in `ids` (ascending, all that are present), lowest on ties."""
    inside = instances > 0
    span = len(CLASSES) + 1
    index = np.searchsorted(ids, instances[inside])
    votes = np.bincount(index * span + types[inside], minlength=len(ids) * span).reshape(-1, span)
    votes[:, 0] = 0
    kinds: Int64 = votes.argmax(axis=1).astype(np.int64)
    return kinds
