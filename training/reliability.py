"""Does 80 % sure mean right eight times in ten? Confidence against accuracy, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Float64, Int64, Segmentation
from training.calibrate import BINS
from training.data.sample import Sample
from training.matching import met
from training.scores import RESAMPLES

matplotlib.use("Agg")
from matplotlib import pyplot


@dataclass(frozen=True, slots=True)
class Answers:
    """How sure a model was of each of its N nuclei, and what became of them.

    Attributes:
        image: (N,) index of the image.
        named: (N,) class, 0..5; -1 where it stayed open.
        sure: (N,) probability of that class, 0..1.
        met: (N,) whether the nucleus meets a true one at IoU > 0.5.
        right: (N,) whether it does, and the class is right.
    """

    image: Int64
    named: Int64
    sure: Float64
    met: NDArray[np.bool_]
    right: NDArray[np.bool_]

    def of(self, which: Any) -> Answers:
        """Some of them, by mask or index."""
        return Answers(self.image[which], self.named[which], self.sure[which], self.met[which], self.right[which])

    def error(self) -> float:
        """Expected calibration error of the class of nuclei that meet a true one."""
        return error(bins(self.sure[self.met], self.right[self.met].astype(float)))


def answers(samples: Sequence[Sample], found: Sequence[Segmentation]) -> Answers:
    """What a model said of some labelled images, nucleus by nucleus."""
    parts = []
    for index, (sample, segmentation) in enumerate(zip(samples, found, strict=True)):
        true = met(segmentation.instance_map, sample.instance_map)
        kinds, hit = segmentation.nuclei.type.astype(np.int64), true > 0
        right = np.zeros(len(true), bool)
        right[hit] = kinds[hit] == sample.types[true[hit]]
        sure = segmentation.nuclei.type_prob.astype(np.float64)
        parts.append(Answers(np.full(len(true), index, np.int64), kinds - 1, sure, hit, right))
    return Answers(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Answers)))


def by_class(given: Answers) -> list[dict[str, Any]]:
    """For each class given: nuclei that meet a true one, how sure the model was of them, and how often it was right."""
    rows = []
    for index, name in enumerate(NAMES):
        own = given.of((given.named == index) & given.met)
        if len(own.sure):
            right = float(own.right.mean())
            row = {"class": name, "nuclei": len(own.sure), "confidence": float(own.sure.mean()), "right": right}
            rows.append(row | {"error": own.error()})
    return rows


def interval(given: Answers, seed: int = 1) -> tuple[float, float]:
    """95 % interval of the expected calibration error, from a bootstrap over images."""
    rng = np.random.default_rng(seed)
    images = [np.flatnonzero(given.image == i) for i in range(int(given.image.max(initial=0)) + 1)]
    drawn = (rng.choice(len(images), len(images)) for _ in range(RESAMPLES))
    errors = [given.of(np.concatenate([images[i] for i in draw])).error() for draw in drawn]
    low, high = np.percentile(errors, [2.5, 97.5])
    return float(low), float(high)


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
    lower.set(xlabel="probability of the class that a nucleus was given", ylabel="nuclei")
    figure.savefig(picture, dpi=80)
    pyplot.close(figure)
