"""How many patches a second does the shipped model take on this CPU, one view, separation and description included?

    python -m tests.benchmarks.bench_lite

Runs of the whole Segmenter and of the network alone are interleaved, so that a busy machine slows both alike; the share
of the network is the figure to trust, patches a second depend on the machine. So are batches of as many patches as
there are cores, in lanes (`app.nuclei.lanes`) and by all cores one patch after the other. The same once more by the
graphs that calculate in int8, also where they would not serve because this CPU cuts their sums off.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from skimage.data import immunohistochemistry

from app.nuclei import Segmenter, hover, load_artifact
from app.nuclei.engine import OnnxEngine, cpu_limit
from tests.benchmarks.results import merge
from training.int8 import multiplies_exactly

BAR = 10.0
PATCH = 256


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, merge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    hover.warm_up()
    segmenter = Segmenter(load_artifact("karyon-lite"))
    image = np.ascontiguousarray(immunohistochemistry()[:PATCH, :PATCH])
    engine, batch = OnnxEngine.open(segmenter.artifact), np.stack([image] * max(2, cpu_limit()))
    wide = replace(engine, lanes=None)
    bytewise = Segmenter(segmenter.artifact, OnnxEngine.open(segmenter.artifact, precision="int8"))
    work = {
        "all": lambda: segmenter.segment(image, mpp=0.5, profile="fast"),
        "network": lambda: segmenter.engine.predict(image[None]),
        "lanes": lambda: engine.predict(batch),
        "wide": lambda: [wide.predict(patch[None]) for patch in batch],
        "all in int8": lambda: bytewise.segment(image, mpp=0.5, profile="fast"),
        "lanes in int8": lambda: bytewise.engine.predict(batch),
    }
    for run in work.values():
        run()
    served = "" if multiplies_exactly() else "; in int8 this CPU is wrong, and does not serve"
    times = {name: [seconds(run) for _ in range(1)] for name, run in work.items()}
    for _ in range(arguments.rounds):
        for name, run in work.items():
            times[name].append(seconds(run))
    whole, network, lanes, one_by_one, whole_int8, lanes_int8 = (statistics.median(times[name]) for name in work)
    print(
        f"{cpu_limit()} threads: {1 / whole:.1f} patches/s, {1000 * whole:.1f} ms each, network {network / whole:.0%}; "
        f"network alone {len(batch) / one_by_one:.1f} patches/s one by one, {len(batch) / lanes:.1f} in lanes; "
        f"in int8 {1 / whole_int8:.1f} patches/s, network alone {len(batch) / lanes_int8:.1f} in lanes{served}"
    )
    merge(
        [
            {
                "name": "lite_patches_per_s",
                "value": round(1 / whole, 1),
                "unit": f"patches/s on {cpu_limit()} threads",
                "bar": BAR,
                "holds": 1 / whole >= BAR,
            },
            {
                "name": "lite_lanes_ratio",
                "value": round(one_by_one / lanes, 3),
                "unit": "x the patches/s of all cores on one patch after the other",
                "bar": None,
                "holds": None,
            },
            {
                "name": "lite_int8_ratio",
                "value": round(whole / whole_int8, 2),
                "unit": f"x the patches/s in float32, separation included{served}",
                "bar": None,
                "holds": None,
            },
            {
                "name": "lite_int8_lanes_ratio",
                "value": round(lanes / lanes_int8, 2),
                "unit": f"x the patches/s in float32 of the network in lanes{served}",
                "bar": None,
                "holds": None,
            },
        ]
    )


if __name__ == "__main__":
    main()
