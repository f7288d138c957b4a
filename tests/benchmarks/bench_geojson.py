"""How much faster is GeoJSON written from columns than by `json.dumps`?

`json.dumps` is given the finished object, so only writing is compared: building that object is not counted against it,
while our figure holds everything from columns to bytes, identifiers included. Runs are interleaved and medians taken,
so a busy machine slows both alike. The figures are merged into `out/bench/results.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import cv2
import numpy as np

from app.formats import geojson
from app.formats.document import ModelFacts, RequestContext, Runtime
from app.nuclei import instances
from app.nuclei.types import Mpp, QualityReport, Segmentation
from tests.benchmarks.results import merge

BAR = 6.0
# Rings are whole numbers on the model's own scale, and have two decimals on any other.
CASES = {"geojson_vs_json": 1.0, "geojson_vs_json_rescaled": 0.93}


def nuclei(count: int, scale: float) -> Segmentation:
    """About so many ellipses, most with 20 to 40 corners, in an image of `scale` times the model's pixels."""
    rng = np.random.default_rng(0)
    side = round(count**0.5)
    labels = np.zeros((side * 24, side * 24), np.int32)
    for number, (row, col) in enumerate(np.ndindex(side, side), 1):
        axes, angle = rng.integers(5, 11, 2), float(rng.integers(180))
        cv2.ellipse(labels, (col * 24 + 12, row * 24 + 12), axes.tolist(), angle, 0, 360, number, -1)
    grid, repaired, dropped = instances.tidy(labels)
    probs = rng.dirichlet(np.ones(6), int(grid.max()) + 1).astype(np.float32)
    maps = np.concatenate([np.zeros((*grid.shape, 1), np.float32), probs[grid]], axis=2)
    size = round(grid.shape[0] * scale)
    described = instances.describe(grid, maps, (size / grid.shape[1], size / grid.shape[0]))
    mpp = Mpp(0.5 / scale, 0.5 / scale)
    return Segmentation(grid, described, size, size, mpp, 0.5, "fast", QualityReport(), repaired, dropped)


def context() -> RequestContext:
    """Some request."""
    model = ModelFacts("bench", "1", "b" * 64, ("one",), "none", "ellipses")
    now = datetime.now(UTC)
    return RequestContext("bench", now, "0", "0", "a" * 64, model, {}, Runtime("cpu", "none", "float32"))


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(scale: float, count: int, rounds: int) -> float:
    """Median seconds of `json.dumps` over median seconds of `geojson.encode`."""
    segmentation, asked = nuclei(count, scale), context()
    document = json.loads(geojson.encode(segmentation, asked))
    pairs = [
        (seconds(lambda: json.dumps(document).encode()), seconds(lambda: geojson.encode(segmentation, asked)))
        for _ in range(rounds)
    ]
    theirs, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"scale {scale}: {len(segmentation.nuclei)} nuclei, json.dumps {theirs * 1e3:.2f} ms, ours {ours * 1e3:.2f} ms"
    )
    return theirs / ours


def main() -> None:
    """Measure, print, merge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    entries = []
    for name, scale in CASES.items():
        value = round(measure(scale, 1000, 7 if quick else 41), 2)
        entries.append({"name": name, "value": value, "unit": "x", "bar": BAR, "holds": value >= BAR})
        print(f"{name}: {value} x (bar {BAR})")
    merge(entries)


if __name__ == "__main__":
    main()
