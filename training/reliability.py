"""Does 80 % sure mean right eight times in ten? Confidence against accuracy, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from app.nuclei.types import Float64, Segmentation
from training.calibrate import BINS
from training.data.sample import Sample
from training.matching import met

matplotlib.use("Agg")
from matplotlib import pyplot


def answers(samples: Sequence[Sample], found: Sequence[Segmentation]) -> tuple[Float64, Float64]:
    """Of every found nucleus that meets a true one: how sure the model was of its class, and whether it was right.

    Returns:
        (N,) highest class probability 0..1, and (N,) 1.0 or 0.0.
    """
    sure, right = [], []
    for sample, segmentation in zip(samples, found, strict=True):
        true = met(segmentation.instance_map, sample.instance_map)
        hit = true > 0
        probabilities = segmentation.nuclei.class_probs[hit]
        sure.append(probabilities.max(1, initial=0.0).astype(np.float64))
        right.append((probabilities.argmax(1) + 1 == sample.types[true[hit]]).astype(np.float64))
    return np.concatenate(sure), np.concatenate(right)


def bins(sure: Float64, right: Float64) -> list[dict[str, Any]]:
    """Mean confidence, accuracy and nuclei of each of 15 equal bins of confidence that holds any."""
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return [
        {
            "confidence": float(sure[place == i].mean()),
            "accuracy": float(right[place == i].mean()),
            "nuclei": int((place == i).sum()),
        }
        for i in np.unique(place)
    ]


def error(rows: Sequence[dict[str, Any]]) -> float:
    """Expected calibration error: |accuracy - confidence|, weighted by the nuclei of each bin."""
    total = sum(r["nuclei"] for r in rows)
    return float(sum(abs(r["accuracy"] - r["confidence"]) * r["nuclei"] for r in rows) / max(total, 1))


def plot(rows: Sequence[dict[str, Any]], title: str, picture: Path) -> None:
    """Draw the bins, their nuclei below, into a PNG."""
    figure, (upper, lower) = pyplot.subplots(
        2, 1, figsize=(4.6, 5.6), height_ratios=(4, 1), sharex=True, layout="constrained"
    )
    confidence = [r["confidence"] for r in rows]
    upper.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
    upper.plot(confidence, [r["accuracy"] for r in rows], marker="o", color="#0072b2", label="model")
    upper.set(title=title, ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="upper left")
    upper.grid(alpha=0.3)
    lower.bar(confidence, [r["nuclei"] for r in rows], width=0.8 / BINS, color="#0072b2")
    lower.set(xlabel="highest class probability of the nucleus", ylabel="nuclei")
    figure.savefig(picture, dpi=80)
    pyplot.close(figure)
