"""How does a trained network become a folder that the service can serve?

    python -m training.export runs/lite --name karyon-lite --version 1
    python -m training.export runs/seresnext50 runs/seresnext101 --name karyon-ensemble --version 1 --weights int8

writes `model_store/<name>/<version>/` only after ONNX Runtime and torch agree at two batch sizes, and after the folder,
read back as the service reads it, has proved its golden pair.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from skimage import data as skimage_data
from torch import nn

from app.nuclei import hover
from app.nuclei.artifact import SCHEMA, open_folder, sha256_of
from app.nuclei.engine import OUTPUTS, mean, proven
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import HoverMaps, UInt8
from training.data import lizard
from training.deployed import Deployed, TorchEngine, TrainedMember
from training.describe import parameters
from training.encoder_weights import PACKAGED
from training.record import history, record_of, runs_of
from training.storage import shrink

Weights = Literal["float32", "int8"]
AGREEMENT = 1e-4
"""Largest difference between ONNX Runtime and torch in any map."""
GOLDEN_TOLERANCE = 2e-3
"""Golden maps are kept as float16; other CPUs add in another order."""
PATCH_SIZES = (256, 512)
MARGIN = 48
LICENCE_NOTE = """The weights in this folder were learnt from the Lizard data set (Graham et al., 2021), which is
licensed under Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0).

They are therefore offered under the same licence: https://creativecommons.org/licenses/by-nc-sa/4.0/
You may share and adapt them for non-commercial purposes, with attribution to the authors of Lizard and to Karyon,
and under the same licence. Commercial use is not allowed.

Karyon's code is licensed apart from this, under Apache-2.0.
"""
ENCODER_NOTE = """
Their encoder began with weights of EfficientNet-Lite0 (Tan and Le, 2019) that were learnt from ImageNet and are
licensed under Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0); training changed them.
"""


class Disagreement(RuntimeError):
    """ONNX Runtime and torch differ by more than is allowed; nothing was written."""


def export_graph(network: nn.Module, path: Path) -> None:
    """Write a network as ONNX with a free batch and size, then compare it with torch at batches of 1 and 5.

    Raises:
        Disagreement: they differ by more than `AGREEMENT`; the file is removed.
    """
    deployed = Deployed(network).eval()
    free = {0: torch.export.Dim("batch"), 1: 32 * torch.export.Dim("h32"), 2: 32 * torch.export.Dim("w32")}
    program = torch.onnx.export(
        deployed,
        (torch.zeros(2, 256, 256, 3, dtype=torch.uint8),),
        input_names=["patches"],
        output_names=list(OUTPUTS),
        dynamic_shapes=({**free},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    bare(path)
    worst = max(difference(deployed, path, batch) for batch in (1, 5))
    if not worst <= AGREEMENT:
        path.unlink()
        raise Disagreement(f"ONNX Runtime and torch differ by {worst:.1e}, allowed {AGREEMENT:.0e}")


def bare(path: Path) -> None:
    """Rewrite a graph without what the exporter notes about the code it came from: file names, lines, traces."""
    model = onnx.load(path)
    for element in [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.value_info]:
        del element.metadata_props[:]
        element.doc_string = ""
    del model.functions[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def difference(deployed: Deployed, path: Path, batch: int) -> float:
    """Largest difference of any map between a network and a graph, over so many golden patches."""
    patches = np.stack([golden_patch(step) for step in range(batch)])
    return _run(path, patches).furthest_from(TorchEngine(deployed).predict(patches))


def _run(graph: Path, patches: UInt8) -> HoverMaps:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return HoverMaps(*session.run(list(OUTPUTS), {"patches": patches}))


def golden_patch(step: int = 0) -> UInt8:
    """(256, 256, 3) of real tissue that comes inside scikit-image (colon, haematoxylin and DAB)."""
    image: UInt8 = skimage_data.immunohistochemistry()  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(image[32 * step : 32 * step + 256, 16 * step : 16 * step + 256])


def write_artifact(
    members: Sequence[TrainedMember], manifest: Mapping[str, Any], store: Path, card: str, weights: Weights = "float32"
) -> Path:
    """Build a model folder beside the store, prove it, then move it in and make it the active version.

    Args:
        members: at least one; their maps are averaged.
        manifest: every field but members and golden, see model_store/README.md.
        store: folder of models.
        card: text of MODEL_CARD.md.
        weights: how they are kept; int8 is one scale per output channel, expanded when the graph is loaded.

    Returns:
        The folder `<store>/<name>/<version>`.

    Raises:
        FileExistsError: this version is there already; a version never changes.
        Disagreement: a graph does not do what its network does.
    """
    with new_version(store, manifest["name"], manifest["version"]) as folder:
        entries = [_write_member(member, folder, index, weights) for index, member in enumerate(members, 1)]
        golden = write_golden([folder / e["file"] for e in entries], folder)
        full = {"schema": SCHEMA, **manifest, "weights": weights, "members": entries, "golden": golden}
        (folder / "manifest.json").write_text(json.dumps(full, indent=1) + "\n")
        (folder / "LICENSE").write_text(licence_note(manifest["training"]))
        (folder / "MODEL_CARD.md").write_text(card)
        artifact = open_folder(folder)
        proven(artifact)
    return Path(store / manifest["name"] / manifest["version"])


@contextmanager
def new_version(store: Path, name: str, version: str) -> Iterator[Path]:
    """An empty folder to build a model in; if that goes well it becomes this version of the name, and the active one.

    Raises:
        FileExistsError: this version is there already; a version never changes.
    """
    home = store / name / version
    if home.exists():
        raise FileExistsError(f"{name}@{version} is there already; give another version")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".new-") as beside:
        folder = Path(beside) / "artifact"
        folder.mkdir()
        yield folder
        shutil.move(folder, home)
    active = home.parent / "ACTIVE.new"
    active.write_text(version + "\n")
    active.replace(home.parent / "ACTIVE")


def licence_note(training: Mapping[str, Any]) -> str:
    """The licence of weights, and of those that they began with."""
    if any(run.get("config", {}).get("encoder_weights") in PACKAGED for run in history(*runs_of(training))):
        return LICENCE_NOTE + ENCODER_NOTE
    return LICENCE_NOTE


def _write_member(member: TrainedMember, folder: Path, index: int, weights: Weights) -> dict[str, Any]:
    path = folder / f"{index}-{member.encoder}.onnx"
    export_graph(member.network, path)
    if weights == "int8":
        shrink(path)
    count = parameters(member.network)
    return {"encoder": member.encoder, "file": path.name, "sha256": sha256_of(path), "parameters": count}


def write_golden(
    graphs: Sequence[Path], folder: Path, name: str = "golden.npz", tolerance: float = GOLDEN_TOLERANCE
) -> dict[str, Any]:
    """Write the test pair of graphs whose maps are averaged into a folder; its entry in the manifest."""
    patches = golden_patch()[None]
    maps = mean([_run(graph, patches) for graph in graphs])
    halves = {output: getattr(maps, output).astype(np.float16) for output in OUTPUTS}
    np.savez_compressed(folder / name, patches=patches, **halves)
    return {"file": name, "sha256": sha256_of(folder / name), "tolerance": tolerance}


def manifest_of_runs(runs: Sequence[Path], name: str, version: str) -> dict[str, Any]:
    """The manifest of networks trained on Lizard by training.train, one a run, but for what the weights add.

    Operating point and temperature are chosen for the whole model: those beside the first run, if training.tune made
    them. What the networks learnt from is the first run's too.
    """
    run, *others = runs
    point = _chosen(run / "operating_point.json", hover.NATIVE.to_dict())
    config = json.loads((run / "config.json").read_text())
    training = {
        "data": f"Lizard ({', '.join(config['data']['sources'])})",
        "licence": lizard.LICENCE,
        "split": "by slide where Lizard names it (dpath), else by image; "
        f"{config['data']['validation']:.0%} for validation, seed {config['data']['split_seed']}",
        "revision": _revision(),
        **record_of(run),
        "others": [record_of(other) for other in others],
    }
    return {
        "name": name,
        "version": version,
        "classes": list(NAMES),
        "mpp": lizard.MPP,
        "patch_sizes": list(PATCH_SIZES),
        "margin": MARGIN,
        "postprocess": hover.OperatingPoint.from_dict(point).to_dict(),
        "profiles": {"fast": ["original"], "accurate": ["original", "left-right", "up-down"]},
        "calibration": _chosen(run / "calibration.json", {"temperature": 1.0}),
        "licence": lizard.LICENCE,
        "training": training,
        "tumour_burden_reason": "the model does not tell tumour from healthy epithelium",
        "scores": {},
    }


def _chosen(path: Path, otherwise: dict[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = json.loads(path.read_text()) if path.exists() else otherwise
    return chosen


def _revision() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="run folders of training.train, one a member")
    parser.add_argument("--weights", choices=["float32", "int8"], default="float32", help="how they are kept")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--store", type=Path, default=Path("model_store"))
    arguments = parser.parse_args()
    manifest = manifest_of_runs(arguments.run, arguments.name, arguments.version)
    members = [TrainedMember.read(run / "best.pt") for run in arguments.run]
    card = f"# {arguments.name} {arguments.version}\n\nNot evaluated yet: run training.evaluate.\n"
    print(write_artifact(members, manifest, arguments.store, card, arguments.weights))


if __name__ == "__main__":
    main()
