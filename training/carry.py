"""How does a trained run come home from a machine that gives little back? In parts, its convolutions as int8.

    python -m training.carry pack runs/seresnext50 parts --mb 15      # there
    python -m training.carry unpack parts runs                       # here, once all parts of a run are there

A part is a piece of one run's file: weights rounded as `training.export --weights int8` rounds them (it rounds what
comes back to the very same numbers), config, metrics, what training.tune chose, and the record of the run. A run that
came home has ended: its checkpoint stayed.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.record import RECORD, record_of
from training.state import replace
from training.storage import SMALLEST, quantise

TEXTS = ("config.json", "metrics.csv", "operating_point.json", "calibration.json")
SHOWN = 12
"""Digits of a file's SHA-256 in the names of its parts."""
KERNEL = 4
"""Dimensions of a convolution's weights (O, I, kH, kW)."""


def pack(run: Path, folder: Path, most: int) -> list[Path]:
    """Write a run's best weights and its texts as parts.

    Args:
        run: folder of the run.
        folder: for the parts, made if it is not there.
        most: bytes of a part.

    Raises:
        FileNotFoundError: the run has no best.pt.
    """
    best = torch.load(run / "best.pt", weights_only=True, map_location="cpu")
    texts = {name: (run / name).read_text() for name in TEXTS if (run / name).exists()}
    content = {
        "name": best["name"],
        "network": {name: _small(tensor) for name, tensor in best["network"].items()},
        "texts": texts | {RECORD: json.dumps(record_of(run), indent=1) + "\n"},
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    whole = stream.getbuffer()
    folder.mkdir(parents=True, exist_ok=True)
    starts, digest = range(0, len(whole), most), sha256(whole).hexdigest()[:SHOWN]
    paths = [folder / f"{run.name}.{digest}.{n}-of-{len(starts)}.part" for n in range(1, len(starts) + 1)]
    for path, start in zip(paths, starts, strict=True):
        path.write_bytes(whole[start : start + most])
    return paths


def unpack(folder: Path, home: Path) -> list[Path]:
    """Make the runs whose parts lie in a folder again: all of them, or none.

    Args:
        folder: of parts.
        home: folder of run folders.

    Raises:
        ValueError: there is no part, one of a run is missing or spoilt, or a run was packed twice.
        FileExistsError: a run folder is there already.
    """
    packed = sorted({tuple(path.name.rsplit(".", 3)[:2]) for path in folder.glob("*.*.*-of-*.part")})
    names = [name for name, _ in packed]
    if not names:
        raise ValueError(f"{folder} holds no part of a run")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{folder} holds parts of more than one packing of {', '.join(twice)}")
    if there := [name for name in names if (home / name).exists()]:
        raise FileExistsError(f"{home} holds {', '.join(there)} already")
    whole = {name: _whole_file(name, digest, folder) for name, digest in packed}
    return [_written(home / name, content) for name, content in whole.items()]


def _whole_file(name: str, digest: str, folder: Path) -> bytes:
    stem = f"{name}.{digest}"
    count = int(next(folder.glob(f"{stem}.*-of-*.part")).name.rsplit(".", 2)[1].split("-of-")[1])
    parts = [folder / f"{stem}.{n}-of-{count}.part" for n in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.exists()]:
        raise ValueError(f"{folder} lacks {', '.join(missing)}")
    whole = b"".join(part.read_bytes() for part in parts)
    if sha256(whole).hexdigest()[:SHOWN] != digest:
        raise ValueError(f"the parts of {stem} in {folder} are not those that were packed")
    return whole


def _written(run: Path, whole: bytes) -> Path:
    content = torch.load(io.BytesIO(whole), weights_only=True)
    run.mkdir(parents=True)
    network = {key: _whole(stored) for key, stored in content["network"].items()}
    replace(run / "best.pt", {"network": network, "name": content["name"]})
    for key, text in content["texts"].items():
        (run / key).write_text(text)
    return run


def _small(tensor: Tensor) -> Mapping[str, Any]:
    if tensor.dim() != KERNEL or tensor.numel() < SMALLEST:
        return {"exact": tensor}
    codes, scales = quantise(np.ascontiguousarray(tensor.float().numpy()))
    return {"codes": torch.from_numpy(codes), "scales": torch.from_numpy(scales)}


def _whole(stored: Mapping[str, Any]) -> Tensor:
    whole: Tensor = stored["exact"] if "exact" in stored else stored["codes"] * stored["scales"]
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="a run into parts")
    packing.add_argument("run", type=Path)
    packing.add_argument("parts", type=Path)
    packing.add_argument("--mb", type=float, default=15, help="most megabytes of a part")
    unpacking = commands.add_parser("unpack", help="parts into runs")
    unpacking.add_argument("parts", type=Path)
    unpacking.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "pack":
        done = pack(arguments.run, arguments.parts, int(arguments.mb * 1e6))
    else:
        done = unpack(arguments.parts, arguments.runs)
    print("\n".join(map(str, done)))


if __name__ == "__main__":
    main()
