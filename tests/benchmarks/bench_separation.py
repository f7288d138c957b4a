"""How much faster than a plain implementation are separation and description?

    python -m tests.benchmarks.bench_separation [--quick]

A run is maps in, typed nuclei with contours out. The plain code is given the most probable class per pixel ready made;
Karyon finds it itself, and the mean of the class maps, within its time. The last two columns count the plain code's
arg-max as well: both sides then start from the same maps. Plain code and Karyon take turns on the same mosaics of
golden maps; times are the thread's own CPU seconds, so that a busy machine disturbs little. Prints a table of ratios,
one of time per stage and one of two threads against one, and merges its figures into `out/bench/results.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from app.nuclei import hover, landscape, markers, metrics
from app.nuclei.flood import flood
from app.nuclei.hover import NATIVE, PAPER, OperatingPoint
from app.nuclei.instances import describe, tidied
from app.nuclei.rings import trace
from app.nuclei.types import HoverMaps, Nuclei
from tests.benchmarks import plain
from tests.benchmarks.results import merge

PROJECT = Path(__file__).parents[2]
BARS = {"paper_256": 12, "paper_1024": 25, "native_256": 50, "native_1024": 150}
TILE = 256
POINTS = {"paper": PAPER, "native": NATIVE}


def golden_tiles() -> list[HoverMaps]:
    """The 256 x 256 golden maps, float32 as an engine returns them."""
    root = (PROJECT / os.environ.get("KARYON_GOLDEN", "../shared/golden")).resolve() / "separation"
    tiles = []
    for path in sorted(root.glob("*_256.npz")):
        with np.load(path) as file:
            tiles.append(HoverMaps(*(file[key].astype(np.float32) for key in ("np_prob", "hv", "type_prob"))))
    if not tiles:
        raise SystemExit("no golden maps: set KARYON_GOLDEN")
    return tiles


def mosaic(tiles: list[HoverMaps], size: int, first: int = 0) -> HoverMaps:
    """Maps of `size` x `size`, tiles laid in turn from number `first` on."""
    side = size // TILE
    order = [[tiles[(first + row * side + col) % len(tiles)] for col in range(side)] for row in range(side)]
    return HoverMaps(
        *(
            np.concatenate([np.concatenate([getattr(t, name) for t in row], axis=1) for row in order])
            for name in ("np_prob", "hv", "type_prob")
        )
    )


def karyon(maps: HoverMaps, point: OperatingPoint) -> Nuclei:
    """Maps in, typed nuclei with contours out."""
    labels, found = hover.separated(maps.np_prob, maps.hv, point)
    tidy_map = tidied(labels, runs=found)
    return describe(tidy_map.instance_map, maps.type_prob, runs=tidy_map.runs)


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.thread_time) -> float:
    began = clock()
    work()
    return clock() - began


def compare(tiles: list[HoverMaps], size: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of plain, paper, native and a whole arg-max, in turn, over mosaics begun with each tile."""
    times: dict[str, list[float]] = {"plain": [], "paper": [], "native": [], "arg-max": []}
    for turn in range(rounds):
        maps = mosaic(tiles, size, turn)
        kinds = maps.type_prob.argmax(axis=-1).astype(np.uint8)  # the class per pixel is given to the plain code
        times["arg-max"].append(seconds(lambda m=maps: m.type_prob.argmax(axis=-1).astype(np.uint8)))
        times["plain"].append(seconds(lambda m=maps, k=kinds: plain.run(m.np_prob, m.hv, k)))
        for name, point in POINTS.items():
            several = [seconds(lambda m=maps, p=point: karyon(m, p)) for _ in range(5)]
            times[name].append(statistics.median(several))
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def stages(maps: HoverMaps, point: OperatingPoint, repeat: int) -> dict[str, float]:
    """Median milliseconds of each stage."""
    constants = {
        name: getattr(point, name)
        for name in ("enlarge", "sobel_taps", "nucleus_threshold", "marker_threshold", "energy_bits", "hv_scale")
    }
    limits = {"smallest_marker": point.smallest_marker, "smallest_object": point.smallest_object}
    times: dict[str, list[float]] = {}
    for _ in range(repeat):
        clock = [time.thread_time()]

        def lap(name: str, clock: list[float] = clock) -> None:
            clock.append(time.thread_time())
            times.setdefault(name, []).append(1000 * (clock[-1] - clock[-2]))

        terrain = landscape.survey(maps.np_prob, maps.hv, **constants, compiled=True)
        lap("mask, Sobel, energy")
        seeds = markers.clean(terrain.inner, point.opening_shape, point.opening_size, True)
        lap("fill, open")
        labels, found = flood(terrain.mask, seeds, terrain.energy, step=point.enlarge, **limits, compiled=True)
        lap("label, flood")
        labels, _, _, found = tidied(labels, runs=found)
        lap("tidy")
        describe(labels, maps.type_prob, runs=found)
        lap("statistics, votes, contours")
        trace(labels, int(labels.max(initial=0)))
        lap("  of that contours")
    return {name: statistics.median(values) for name, values in times.items()}


def two_threads(maps: HoverMaps, point: OperatingPoint, runs: int) -> float:
    """How many times more images two threads finish than one."""
    alone = seconds(lambda: [karyon(maps, point) for _ in range(runs)], time.perf_counter)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: karyon(maps, point), range(4)))  # both threads have their memory
        together = seconds(lambda: list(pool.map(lambda _: karyon(maps, point), range(runs))), time.perf_counter)
    return alone / together


def score_pair(repeat: int) -> dict[str, float]:
    """Median milliseconds of each score on pairs of label maps of 256 x 256."""
    root = (PROJECT / os.environ.get("KARYON_GOLDEN", "../shared/golden")).resolve() / "separation"
    keys = "truth_instances", "truth_types", "reference_instances", "reference_types"
    pairs = []
    for path in sorted(root.glob("*_256.npz")):
        with np.load(path) as file:
            pairs.append(tuple(file[key] for key in keys))
    work: dict[str, Callable[[], Any]] = {
        "panoptic": lambda: [metrics.panoptic(p[0], p[2]) for p in pairs],
        "mpq_plus": lambda: metrics.mpq_plus(pairs),
        "counts_224": lambda: [metrics.counts_224(*p[:2]) for p in pairs],
    }
    return {name: 1000 * statistics.median(seconds(f) for _ in range(repeat)) / len(pairs) for name, f in work.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no 512")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    warm = seconds(hover.warm_up)
    tiles = golden_tiles()
    for size in (256, 1024):  # nothing is timed on its first run
        for point in POINTS.values():
            karyon(mosaic(tiles, size), point)
    print(f"kernels ready after {warm:.2f} s; milliseconds, medians, one thread\n")
    heads = "plain", "paper", "native", "arg-max", "paper x", "native x", "paper x+", "native x+"
    print(" " * 6 + "".join(f"{head:>10}" for head in heads))
    entries = []
    rounds = {256: 5, 1024: 1} if arguments.quick else {256: 15, 512: 5, 1024: 3}
    for size, turns in rounds.items():
        found = compare(tiles, size, turns)
        ratios = {name: found["plain"] / found[name] for name in POINTS}
        whole = [(found["plain"] + found["arg-max"]) / found[name] for name in POINTS]
        print(f"{size:<6}" + "".join(f"{v:10.2f}" for v in (*found.values(), *ratios.values(), *whole)))
        for name, ratio in ratios.items():
            if bar := BARS.get(f"{name}_{size}"):
                entry = {"name": f"separation_{name}_{size}", "value": round(ratio, 1), "unit": "x plain", "bar": bar}
                entries.append({**entry, "holds": ratio >= bar})
    print("\nmilliseconds per stage")
    columns = {
        (n, s): stages(mosaic(tiles, s), p, 3 if s > 256 else 15) for n, p in POINTS.items() for s in (256, 1024)
    }
    print(f"{'':30}" + "".join(f"{f'{n} {s}':>13}" for n, s in columns))
    for stage in next(iter(columns.values())):
        print(f"{stage:30}" + "".join(f"{times[stage]:13.2f}" for times in columns.values()))
    print(
        "\ntwo threads against one: "
        + ", ".join(
            f"{name} {size} {two_threads(mosaic(tiles, size), point, 60 if size == 256 else 6):.2f}x"
            for name, point in POINTS.items()
            for size in (256, 1024)
        )
    )
    for name, took in score_pair(9).items():
        print(f"{name}: {took:.2f} ms a pair of 256 x 256")
        entries.append(
            {"name": f"metrics_{name}_256_ms", "value": round(took, 3), "unit": "ms", "bar": None, "holds": None}
        )
    merge(entries)
    for entry in entries[:4]:
        print(
            f"{entry['name']:24}{entry['value']:8.1f}x  bar {entry['bar']}x  {'holds' if entry['holds'] else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
