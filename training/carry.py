"""How does a trained run come home from a machine that gives little back? In parts, its convolutions as int8.

    python -m training.carry pack runs/seresnext50 parts --mb 15      # there
    python -m training.carry unpack parts runs                       # here, once all parts of a run are there

A part is a piece of one run's file: weights rounded as `training.export --weights int8` rounds them (it rounds what
comes back to the very same numbers), config, metrics and the record of what the run began with. Checkpoints stay.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.record import BEGAN_WITH, DEVICE
from training.state import replace
from training.storage import SMALLEST, quantise

TEXTS = ("config.json", "metrics.csv", BEGAN_WITH, DEVICE)
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
    content = {
        "name": best["name"],
        "network": {name: _small(tensor) for name, tensor in best["network"].items()},
        "texts": {name: (run / name).read_text() for name in TEXTS if (run / name).exists()},
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    whole = stream.getbuffer()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(whole), most)
    paths = [folder / f"{run.name}.{n}-of-{len(starts)}.part" for n in range(1, len(starts) + 1)]
    for path, start in zip(paths, starts, strict=True):
        path.write_bytes(whole[start : start + most])
    return paths


def unpack(folder: Path, home: Path) -> list[Path]:
    """Make the runs whose parts lie in a folder again.

    Args:
        folder: of parts.
        home: folder of run folders.

    Raises:
        ValueError: there is no part, or one of a run is missing.
        FileExistsError: a run folder is there already.
    """
    names = sorted({path.name.rsplit(".", 2)[0] for path in folder.glob("*.part")})
    if not names:
        raise ValueError(f"{folder} holds no part of a run")
    return [_unpacked(name, folder, home / name) for name in names]


def _unpacked(name: str, folder: Path, run: Path) -> Path:
    there = list(folder.glob(f"{name}.*-of-*.part"))
    count = int(there[0].name.rsplit(".", 2)[1].split("-of-")[1])
    parts = [folder / f"{name}.{n}-of-{count}.part" for n in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.exists()]:
        raise ValueError(f"{folder} lacks {', '.join(missing)}")
    content = torch.load(io.BytesIO(b"".join(part.read_bytes() for part in parts)), weights_only=True)
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
