"""How many patches a second does a device do, separation included, against the plain pipeline in torch beside it?

    python -m tests.gpu.bench_device                          # on the GPU: each member and the ensemble
    python -m tests.gpu.bench_device --device cpu --narrow    # the same path on a CPU, narrow networks: a minute
    python -m tests.gpu.bench_device --model karyon-lite --run runs/efficient-lite-full-distilled    # as it serves

Without `--model` the paper's networks are exported on the spot with random weights (their batch norms fitted to
tissue). Such maps mean nothing, so both pipelines separate the same drawn nuclei instead: that run says how fast, not
how good. Plain is what research code does: the training network in float32 under torch's own defaults, view by view,
then `tests.benchmarks.plain` patch by patch. Ours is the engine that serves, in batches of the size that its
calibration finds, and the Segmenter's separation in threads while the device goes on. Runs of both are interleaved;
medians count.

Of Karyon's dependencies it needs torch, onnx, onnxscript, onnxruntime-gpu, OpenCV, scikit-image, SciPy, numba and
shapely. Where there is no package registry and uploads are small, the large wheel travels in parts:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 onnxruntime-gpu
    split -b 40M onnxruntime_gpu-*.whl part-        # bring the parts over one by one; then, there:
    cat part-* > $WHEEL                             # under the wheel's own name
    python -m pip install --no-index --no-deps --target site $WHEEL shapely-*.whl
    PYTHONPATH=site:. python -m tests.gpu.bench_device --store store --out device.json

The table comes last; `--out` gets the figures in the form of `make bench`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from app.nuclei import Segmenter, hover, load_artifact, views
from app.nuclei.engine import CPU, CUDA, OnnxEngine, cpu_limit
from app.nuclei.types import HoverMaps, UInt8
from app.nuclei.views import PAPER_VIEWS, View
from app.serving.calibration import Measured, measure
from tests.benchmarks import plain
from tests.gpu.trial import Trial, plain_maps, tissue, trained, untrained

MEMBERS = ("seresnext50", "seresnext101")
BARS = {"device_ensemble_3_views_patches_per_s": 100.0, "device_ensemble_3_views_times_plain": 10.0}
Run = Callable[[int], object]


@dataclass(frozen=True)
class Fixed:
    """An engine that gives the maps it was given."""

    maps: HoverMaps

    def predict(self, patches: UInt8) -> HoverMaps:
        return self.maps


@dataclass(frozen=True)
class Ours:
    """The engine that serves, in full batches, and separation in threads beside it; called with a number of patches."""

    trial: Trial
    engine: OnnxEngine
    views: Sequence[View]
    boarded: bool
    most: int

    def network(self, batch: UInt8) -> HoverMaps:
        """Maps alone."""
        if self.boarded:
            return self.engine.predict_views(batch, self.views)
        return views.average(self.engine.predict, batch, self.views)

    def separate(self, patch: UInt8, maps: HoverMaps, index: int) -> None:
        found = HoverMaps(*(m[None] for m in (maps.np_prob, maps.hv, maps.type_prob)))
        engine = Fixed(found if self.trial.trained else self.trial.maps(index))
        Segmenter(self.trial.artifact, engine).segment(patch, mpp=0.5, profile="fast")

    def __call__(self, count: int) -> None:
        with ThreadPoolExecutor(cpu_limit()) as threads:
            waiting = []
            for first, batch in batches(count, self.most):
                maps = self.network(batch)
                waiting += [threads.submit(self.separate, batch[i], maps[i], first + i) for i in range(len(batch))]
            for one in waiting:
                one.result()


@dataclass(frozen=True)
class Plain:
    """The training networks in torch and the plain separation, one after the other."""

    trial: Trial
    views: Sequence[View]
    device: torch.device
    most: int

    def network(self, batch: UInt8) -> HoverMaps:
        """Maps alone."""
        return plain_maps(self.trial.networks, batch, self.views, self.device)

    def __call__(self, count: int) -> None:
        for first, batch in batches(count, self.most):
            maps = self.network(batch)
            for i in range(len(batch)):
                own = maps[i] if self.trial.trained else self.trial.maps(first + i)[0]
                plain.run(own.np_prob, own.hv, own.type_prob.argmax(-1).astype(np.uint8))


def batches(count: int, most: int) -> list[tuple[int, UInt8]]:
    """`count` patches of tissue in batches, each with the number of its first patch."""
    pool = tissue()
    numbers = [range(first, min(first + most, count)) for first in range(0, count, most)]
    return [(some[0], pool[[i % len(pool) for i in some]]) for some in numbers]


def seconds(run: Run, count: int) -> float:
    """Wall time of so many patches; both pipelines end on the host, so nothing is left running."""
    began = time.perf_counter()
    run(count)
    return time.perf_counter() - began


def calibrated(ours: Ours, budget_s: float) -> tuple[Ours, dict[bool, Measured]]:
    """Ours at its best batch size, with the views averaged where that is faster; both measurements."""

    def timed(one: Ours, count: int) -> float:
        batch = batches(count, count)[0][1]
        return seconds(lambda _: one.network(batch), count)

    arms = {there: partial(timed, replace(ours, boarded=there)) for there in (True, False)}
    found = {there: measure(arm, budget_s, prepares=ours.engine.pads) for there, arm in arms.items()}
    boarded = found[True].rate >= found[False].rate
    return replace(ours, boarded=boarded, most=found[boarded].most), found


def interleaved(runs: dict[str, Run], round_s: float, rounds: int) -> dict[str, list[float]]:
    """Patches per second of each, measured in turns; each round takes about `round_s`."""
    counts, rates = {}, {name: [] for name in runs}  # type: dict[str, int], dict[str, list[float]]
    for name, run in runs.items():
        size = getattr(run, "most", 1)
        run(size)
        counts[name] = size * max(1, round(round_s / seconds(run, size)))
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(counts[name] / seconds(run, counts[name]))
    return rates


@dataclass(frozen=True)
class Bench:
    """What is measured with.

    Attributes:
        arguments: of the command line.
        device: in torch's words.
        figures: what was found, in the form of `make bench`.
        rows: of the table.
    """

    arguments: argparse.Namespace
    device: torch.device
    figures: list[dict[str, Any]]
    rows: list[tuple[str, ...]]

    def measure(self, trial: Trial, label: str) -> None:
        """One model, one view and three, in each precision, against plain."""
        provider = CUDA if self.device.type == "cuda" else CPU
        for precision in self.arguments.precision if provider == CUDA else ("float32",):
            engine = OnnxEngine.open(trial.artifact, provider, precision=precision, boarded=True)
            drift = engine.predict(tissue(2)).furthest_from(
                plain_maps(trial.networks, tissue(2), PAPER_VIEWS[:1], self.device)
            )
            for seen in (PAPER_VIEWS[:1], PAPER_VIEWS):
                ours, found = calibrated(Ours(trial, engine, seen, True, 1), self.arguments.budget)
                theirs = Plain(trial, seen, self.device, self.arguments.plain_batch)
                rates = interleaved({"ours": ours, "plain": theirs}, self.arguments.round_s, self.arguments.rounds)
                self.note(label, precision, len(seen), ours, found, rates, drift)
                self.write()
                print("  ".join(self.rows[-1]), flush=True)  # a run that is cut off has said what it found

    def write(self) -> None:
        """The figures so far, to the file that was asked for."""
        self.arguments.out.parent.mkdir(parents=True, exist_ok=True)
        self.arguments.out.write_text(json.dumps(self.figures, indent=1) + "\n")

    def note(
        self,
        label: str,
        precision: str,
        count: int,
        ours: Ours,
        found: dict[bool, Measured],
        rates: dict[str, list[float]],
        drift: float,
    ) -> None:
        """A row and its figures; those of the precision that serves by default carry the bars."""
        mine, theirs = (statistics.median(rates[name]) for name in ("ours", "plain"))
        suffix = "" if precision == "float16" or self.device.type == "cpu" else f"_{precision}"
        name = f"device_{label}_{count}_view{'s' if count > 1 else ''}{suffix}"
        for end, value, unit in (("patches_per_s", mine, "patches/s"), ("times_plain", mine / theirs, "x")):
            bar = BARS.get(f"{name}_{end}")
            holds = None if bar is None or self.device.type == "cpu" else value >= bar
            extra = {"plain": round(theirs, 2), "spread": [round(min(rates["ours"]), 2), round(max(rates["ours"]), 2)]}
            entry = {"name": f"{name}_{end}", "value": round(value, 2), "unit": unit, "bar": bar, "holds": holds}
            self.figures.append(entry | extra)
        where = "device" if ours.boarded else "host"
        network = max(one.rate for one in found.values())
        spread = f"{min(rates['ours']):.1f}-{max(rates['ours']):.1f}"
        self.rows.append(
            (label, precision, str(count), str(ours.most), where, f"{found[True].rate / found[False].rate:.2f}",
             f"{network:.1f}", f"{mine:.1f}", spread, f"{theirs:.2f}", f"{mine / theirs:.1f}", f"{drift:.1e}")
        )  # fmt: skip


HEAD = ("model", "precision", "views", "batch", "on", "device/host", "network", "ours", "range", "plain", "x", "off by")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under their heads, columns aligned; patches per second."""
    all_rows = [HEAD, *rows]
    widths = [max(len(row[i]) for row in all_rows) for i in range(len(HEAD))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in all_rows)


def ensemble(arguments: argparse.Namespace, device: torch.device, store: Path) -> Trial:
    """The model that is measured."""
    if arguments.model:
        return trained(load_artifact(arguments.model), arguments.run, device)
    return untrained([m + "-narrow" if arguments.narrow else m for m in MEMBERS], device, store)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--narrow", action="store_true", help="narrow networks: the path, not the speed")
    parser.add_argument("--model", help="NAME or NAME@VERSION of a trained model")
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="run folders of its members, in order")
    parser.add_argument("--store", type=Path, help="keeps the exported networks for another run")
    parser.add_argument("--whole", action="store_true", help="an ensemble without its members one by one")
    parser.add_argument("--precision", nargs="+", choices=["float16", "float32"], default=["float16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-s", type=float, default=2.0, help="seconds of one measurement")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of each calibration")
    parser.add_argument("--plain-batch", type=int, default=8, help="patches that the plain pipeline takes at once")
    parser.add_argument("--out", type=Path, default=Path("out/bench/device.json"))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU; --device cpu --narrow walks the same path")
    cv2.setNumThreads(1)
    hover.warm_up()
    device = torch.device(arguments.device)
    bench = Bench(arguments, device, [], [])
    with tempfile.TemporaryDirectory() as scratch:
        whole = ensemble(arguments, device, arguments.store or Path(scratch))
        count = len(whole.networks)
        bench.measure(whole, "ensemble" if count > 1 else whole.name)  # first: a time limit cuts off what is last
        for index in range(0 if arguments.whole or count == 1 else count):
            bench.measure(whole.member(index), whole.member(index).name)
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {cpu_limit()} threads"
    print(f"\n{card}; patches of 256x256 per second, separation and description included but for `network`")
    if not arguments.model:
        print("random weights, drawn nuclei separated: these figures say how fast, not how good")
    print(table(bench.rows))


if __name__ == "__main__":
    main()
