"""What do the load benchmarks share? Tiles, services with settings of their own, callers with keys, and entries."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.bench.server import SERVE, Server, own_server
from app.bench.target import Target
from app.bench.tiles import load_tiles
from tests.benchmarks.results import merge

PROJECT = Path(__file__).parents[2]
OBJECTIVE_S = 2.0
MOST = 1_000_000


def options(doc: str | None, seconds: float, **more: float) -> argparse.Namespace:
    """Command-line options: seconds of a phase, and further numbers with their defaults."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=seconds, help=f"of a phase ({seconds:g})")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"({default:g})")
    return parser.parse_args()


def real_tiles() -> list[bytes]:
    """Tiles of real H&E tissue where it is at hand (KARYON_DATA), else of the tissue that scikit-image ships."""
    folder = PROJECT / os.environ.get("KARYON_DATA", "../shared/data") / "lizard" / "Lizard_Images"
    tiles = load_tiles(folder if folder.is_dir() else None)
    print(f"{len(tiles)} tiles of {folder.name if folder.is_dir() else 'the shipped tissue'}")
    return tiles


@contextmanager
def service(command: Sequence[str] = SERVE, **settings: str) -> Iterator[Server]:
    """A service of its own for the time of a benchmark; settings in lower case, without the prefix."""
    environment = {f"KARYON_{name.upper()}": value for name, value in settings.items()}
    with (
        tempfile.TemporaryDirectory(prefix="karyon-bench-") as folder,
        own_server(Path(folder), command, **environment) as server,
    ):
        yield server


def api_keys(*tenants: str) -> str:
    """The setting `api_keys` under which each tenant's key is its own name."""
    return ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in tenants)


async def warm(target: Target, requests: int = 8) -> None:
    """Ask a few times, so that nothing of a first time is measured."""
    for number in range(requests):
        answer = await target.segment(number)
        assert answer.status == 200, f"the service answers with status {answer.status}"


def entry(name: str, value: float, unit: str, bar: float | None, holds: bool | None) -> dict[str, Any]:
    """One figure as the list of results has it; a value that is no number (nothing was there to measure) is null."""
    finite = round(value, 4) if math.isfinite(value) else None
    return {"name": name, "value": finite, "unit": unit, "bar": bar, "holds": holds}


def report(entries: list[dict[str, Any]]) -> None:
    """Print entries and put them into the list."""
    words = {True: "holds", False: "does not hold", None: "not judged"}
    for one in entries:
        bar = "" if one["bar"] is None else f" (bar {one['bar']:g})"
        value = "nothing" if one["value"] is None else f"{one['value']:g}"
        print(f"{one['name']}: {value} {one['unit']}{bar}: {words[one['holds']]}")
    merge(entries)


def counter(exposition: str, name: str, **labels: str) -> float:
    """Sum of a metric's series that carry these labels; 0 if there are none."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = [line for line in exposition.splitlines() if line.partition("{")[0].partition(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in wanted))


def histogram_percentile(before: str, after: str, name: str, q: float) -> float:
    """A percentile of what a histogram without labels counted between two expositions, linear within its buckets."""
    low, below = 0.0, 0.0
    edges = [line.split('le="')[1].split('"')[0] for line in after.splitlines() if line.startswith(f"{name}_bucket")]
    counts = [counter(after, f"{name}_bucket", le=e) - counter(before, f"{name}_bucket", le=e) for e in edges]
    wanted = q / 100 * counts[-1]
    for edge, upto in zip(edges, counts, strict=True):
        if upto >= wanted:
            return low + (float(edge) - low) * (wanted - below) / (upto - below) if edge != "+Inf" else float("inf")
        low, below = float(edge), upto
    return float("nan")
