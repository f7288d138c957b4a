"""How sure may a model say it is? One temperature, chosen on validation nuclei (Guo et al., 2017).

A nucleus' class probabilities are the mean of its pixels' (app.nuclei.instances.describe); the temperature is applied
to the pixels, as the service does, and chosen so that the probabilities fit how often the class is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from app.nuclei import hover, instances
from app.nuclei.hover import OperatingPoint
from app.nuclei.separation import calibrated
from app.nuclei.types import Float64, HoverMaps, Int32, Int64
from training.data.sample import Sample
from training.matching import met

BINS = 15


class NothingFound(ValueError):
    """No validation nucleus was met, so nothing can be fitted."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature and what it does to validation nuclei.

    Attributes:
        temperature: p^(1/T), normalised.
        ece_before, ece_after: expected calibration error at T = 1 and at `temperature`, 0..1.
        nuclei: how many were looked at.
    """

    temperature: float
    ece_before: float
    ece_after: float
    nuclei: int


@dataclass(frozen=True)
class Found:
    """One validation image: its nuclei as separated, their class maps, and the true class of those that are matched."""

    labels: Int32
    maps: HoverMaps
    truth: Int64


def fit(samples: Sequence[Sample], maps: Sequence[HoverMaps], point: OperatingPoint) -> Calibration:
    """The temperature of least negative log-likelihood over nuclei that meet a true one at IoU > 0.5.

    Raises:
        NothingFound: no nucleus was met; there is nothing to calibrate on.
    """
    images = [_found(s, m, point) for s, m in zip(samples, maps, strict=True)]
    if not any((i.truth > 0).any() for i in images):
        raise NothingFound("no validation nucleus was found: train longer before calibrating")
    best = minimize_scalar(lambda t: _loss(*_probabilities(images, t)), bounds=(0.3, 5.0), method="bounded")
    temperature = round(float(best.x), 3)
    before, after = (_probabilities(images, t) for t in (1.0, temperature))
    return Calibration(temperature, ece(*before), ece(*after), len(before[1]))


def ece(probabilities: Float64, truth: Int64) -> float:
    """Expected calibration error: |accuracy - confidence| over 15 bins of confidence, weighted by their nuclei.

    Args:
        probabilities: (N, C), each row sums to 1.
        truth: (N,) index of the true class, 0..C-1.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = [np.bincount(bins, weights=v, minlength=BINS) for v in (confidence, right.astype(float))]
    return float(np.abs(sums[0] - sums[1]).sum() / max(len(truth), 1))


def _loss(probabilities: Float64, truth: Int64) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)).mean())


def _probabilities(images: Sequence[Found], temperature: float) -> tuple[Float64, Int64]:
    probabilities, truth = [], []
    for image in images:
        soft = calibrated(image.maps.type_prob, image.labels > 0, temperature)
        matched = image.truth > 0
        probabilities.append(instances.describe(image.labels, soft, (1, 1)).class_probs[matched].astype(np.float64))
        truth.append(image.truth[matched] - 1)
    return np.concatenate(probabilities), np.concatenate(truth)


def _found(sample: Sample, maps: HoverMaps, point: OperatingPoint) -> Found:
    labels = instances.tidy(hover.separate(maps.np_prob, maps.hv, point))[0]
    return Found(labels, maps, sample.types[met(labels, sample.instance_map)].astype(np.int64))
