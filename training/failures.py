"""Where do a model's errors lie? By the size of nuclei and by how crowded they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from app.nuclei.types import Float64, Segmentation
from training.data.sample import Sample
from training.matching import met

REACH_UM = 20.0
"""Neighbours are centroids within this distance."""
BINS = 4


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of every true nucleus of one or more images, as columns of one length.

    Attributes:
        area_um2: its size.
        neighbours: other true nuclei within `REACH_UM`.
        found: 1.0 where a predicted nucleus meets it at IoU > 0.5.
        named: 1.0 where that one also has its class.
    """

    area_um2: Float64
    neighbours: Float64
    found: Float64
    named: Float64


def fates(sample: Sample, found: Segmentation) -> Fates:
    """What became of the true nuclei of one image."""
    true = met(found.instance_map, sample.instance_map)
    there = np.unique(sample.instance_map)[1:]
    hit = np.isin(there, true)
    kinds = np.zeros(len(sample.types), np.int64)
    kinds[true[true > 0]] = found.nuclei.type[true > 0]
    areas = np.bincount(sample.instance_map.ravel(), minlength=len(sample.types))[there]
    tree = KDTree(sample.centres[:, :2]) if len(there) else None
    near = tree.query_ball_point(sample.centres[:, :2], REACH_UM / sample.mpp, return_length=True) - 1 if tree else []
    return Fates(
        (areas * sample.mpp**2).astype(np.float64),
        np.asarray(near, np.float64),
        hit.astype(np.float64),
        (hit & (kinds[there] == sample.types[there])).astype(np.float64),
    )


def together(parts: Sequence[Fates]) -> Fates:
    """Many images as one."""
    return Fates(*(np.concatenate([getattr(p, name) for p in parts]) for name in Fates.__slots__))


def table(all_fates: Fates, column: str) -> list[dict[str, Any]]:
    """Shares found and rightly named in quarters of a column.

    Args:
        all_fates: of the images.
        column: "area_um2" or "neighbours".

    Returns:
        A row a quarter, smallest first: `low` and `high` of the column, `nuclei`, `found` and, of those found,
        `named`, 0..1. Quarters that ties make empty are left out.
    """
    values = getattr(all_fates, column)
    if not len(values):
        return []
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, values, side="right")
    rows = []
    for quarter in np.unique(place):
        inside = place == quarter
        hits = float(all_fates.found[inside].sum())
        rows.append(
            {
                "low": float(values[inside].min()),
                "high": float(values[inside].max()),
                "nuclei": int(inside.sum()),
                "found": hits / int(inside.sum()),
                "named": float(all_fates.named[inside].sum()) / hits if hits else 0.0,
            }
        )
    return rows
