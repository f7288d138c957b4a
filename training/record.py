"""What does a model's manifest say of the run that made its weights, and of those before it?"""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from app.nuclei.engine import cpu_limit
from training.describe import gflop
from training.network import build

Record = dict[str, Any]
"""config; minutes; device that learnt, or None; gflop of a 256x256 view; began_with: the same of the run whose weights
it began with, or None; averaged_with: the same of each run whose weights were averaged with its own, by training.soup,
and averaged_crops, on how many crops the norms were estimated then."""
FIELDS = ("config", "minutes", "device", "gflop", "began_with", "averaged_with", "averaged_crops")
RECORD, BEGAN_WITH, DEVICE = "record.json", "began_with.json", "device.txt"


def record_of(run: Path) -> Record:
    """What there is to say of a run folder: as it lies there, or as was said where it came from."""
    if (run / RECORD).exists():
        return _read(run / RECORD)
    config = json.loads((run / "config.json").read_text())
    return {
        "config": config,
        "minutes": _minutes(run / "metrics.csv"),
        "device": " and ".join((run / DEVICE).read_text().splitlines()) if (run / DEVICE).exists() else None,
        "gflop": round(gflop(build(config["network"]), 256), 2),
        "began_with": _began_with(run, config.get("begin_from")),
    }


def runs_of(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a manifest says of each member's run, in their order."""
    return [training, *training.get("others", [])]


def history(*runs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Records of runs, of the ones whose weights theirs were averaged with, of what those began with, and so on.

    Each is there once, however many went on from it.
    """
    found: list[Mapping[str, Any]] = []
    for run in runs:
        earlier = [*(run.get("averaged_with") or []), *([run["began_with"]] if run.get("began_with") else [])]
        found += [one for one in (run, *history(*earlier)) if one not in found]
    return found


def remember_device(run: Path, device: torch.device, team: int = 1) -> None:
    """Keep in a run folder what it learns on: hours mean little without it. A further device is a further line.

    Args:
        run: folder of the run.
        device: of one process.
        team: how many processes learn together, each on such a device if it is a GPU.
    """
    gpu, path = device.type == "cuda", run / DEVICE
    name = torch.cuda.get_device_name(device) if gpu else f"{cpu_limit()} CPU cores ({platform.machine()})"
    line = f"{team} x {name}" if gpu else name
    known = path.read_text().splitlines() if path.exists() else []
    if line not in known:
        path.write_text("\n".join([*known, line]) + "\n")


def remember_beginning(run: Path, begin_from: str) -> None:
    """Keep in a run folder what it begins with: that run may go on, or be cleared away."""
    earlier = Path(begin_from).parent
    if (earlier / "config.json").exists():
        (run / BEGAN_WITH).write_text(json.dumps(record_of(earlier), indent=1) + "\n")


def _began_with(run: Path, begin_from: str | None) -> Record | None:
    if (run / BEGAN_WITH).exists():
        return _read(run / BEGAN_WITH)
    return record_of(Path(begin_from).parent) if begin_from else None


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text())
    return record


def _minutes(metrics: Path) -> float:
    """Wall time of all epochs; 0 where no record of them is left."""
    if not metrics.exists():
        return 0.0
    with metrics.open(newline="") as file:
        return round(sum(float(row["minutes"]) for row in csv.DictReader(file)), 1)
