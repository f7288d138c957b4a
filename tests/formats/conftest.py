"""Drawn nuclei that went through the real tidying, tracing and measuring, and a request to answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from app.formats.document import ModelFacts, RequestContext, Runtime
from app.nuclei import instances
from app.nuclei.types import Float32, Int32, Mpp, QualityReport, Segmentation

Draw = Callable[..., Segmentation]


def blobs(height: int, width: int, seed: int = 0, spacing: int = 20) -> Int32:
    """Ellipses of all directions and sizes, many of them touching, some cut by the border."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    for number, (row, col) in enumerate(np.ndindex(height // spacing + 1, width // spacing + 1), 1):
        centre = (int(col * spacing + rng.integers(-4, 5)), int(row * spacing + rng.integers(-4, 5)))
        axes = (int(rng.integers(2, 11)), int(rng.integers(1, 8)))
        cv2.ellipse(labels, centre, axes, float(rng.integers(180)), 0, 360, number, -1)
    return labels


def class_maps(labels: Int32, kinds: list[int] | None) -> Float32:
    """(H, W, 7) probabilities: a nucleus is of its kind (or number % 6 + 1) with .4 to .9."""
    rng = np.random.default_rng(1)
    count = int(labels.max())
    kind = np.array([0, *(kinds or [1 + n % 6 for n in range(count)])])
    sure = rng.uniform(0.4, 0.9, count + 1)[:, None]
    rest = rng.dirichlet(np.ones(6), count + 1)
    rows = np.insert(rest * (1 - sure), 0, 0, axis=1)
    rows[np.arange(count + 1), kind] += sure[:, 0]
    return np.asarray(rows[labels], np.float32)


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Makes a segmentation of a label map; `size` (height, width) is the caller's image if it has another grid."""

    def make(
        labels: Int32, kinds: list[int] | None = None, size: tuple[int, int] | None = None, mpp: float = 0.5
    ) -> Segmentation:
        grid, repaired, dropped = instances.tidy(labels)
        height, width = size or grid.shape
        scale = (width / grid.shape[1], height / grid.shape[0])
        nuclei = instances.describe(grid, class_maps(grid, kinds), scale)
        report = QualityReport("pass", (), {"tissue_fraction": 0.94})
        return Segmentation(grid, nuclei, height, width, Mpp(mpp, mpp), 0.5, "fast", report, repaired, dropped)

    return make


@pytest.fixture(scope="session")
def scatter() -> Callable[..., Int32]:
    """Draws a label map full of ellipses: `scatter(height, width, seed, spacing)`."""
    return blobs


@pytest.fixture(scope="session")
def many(draw: Draw) -> Segmentation:
    """Some 150 nuclei on the caller's own grid."""
    return draw(blobs(180, 260))


@pytest.fixture(scope="session")
def few(draw: Draw) -> Segmentation:
    """Five nuclei of 180 x 260 pixels, of known kinds."""
    labels = np.zeros((180, 260), np.int32)
    for number, at in enumerate([(30, 30), (90, 40), (200, 50), (60, 120), (150, 140)], 1):
        cv2.circle(labels, at, 6 + number, number, -1)
    return draw(labels, kinds=[2, 2, 3, 2, 6])


@pytest.fixture(scope="session")
def nothing(draw: Draw) -> Segmentation:
    """A tile without nuclei."""
    return draw(np.zeros((64, 48), np.int32))


@pytest.fixture(scope="session")
def context() -> RequestContext:
    model = ModelFacts("karyon-lite", "1.0.0", "b" * 64, ("tiny",), "CC-BY-NC-SA-4.0", "drawn ellipses")
    created = datetime(2026, 8, 1, 12, 30, tzinfo=UTC)
    thresholds = {"np": 0.5, "marker": 0.6}
    runtime = Runtime("cpu", "CPUExecutionProvider", "float32")
    return RequestContext("7d0e2a54", created, "0.1.0", "abc1234", "a" * 64, model, thresholds, runtime)
