"""Which true nucleus does each found one meet? At IoU > 0.5 there is at most one (Kirillov et al., 2019)."""

from __future__ import annotations

import numpy as np

from app.nuclei.types import Int32, Int64


def met(labels: Int32, truth: Int32) -> Int64:
    """The true id that each found nucleus meets.

    Args:
        labels: (H, W) found, dense 1..N.
        truth: (H, W) true, gaps allowed.

    Returns:
        (N,) id in `truth` at IoU > 0.5, 0 where there is none.
    """
    span = int(truth.max(initial=0)) + 1
    pairs, shared = np.unique(labels.astype(np.int64) * span + truth, return_counts=True)
    found, true = pairs // span, pairs % span
    areas, true_areas = np.bincount(labels.ravel()), np.bincount(truth.ravel(), minlength=span)
    good = (found > 0) & (true > 0) & (shared / (areas[found] + true_areas[true] - shared) > 0.5)
    result = np.zeros(len(areas), np.int64)
    result[found[good]] = true[good]
    return result[1:]
