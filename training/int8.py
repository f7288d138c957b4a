"""How does a model calculate in int8 on a CPU? By graphs beside its own, in which convolutions multiply bytes.

    python -m training.int8 karyon-lite@2 --version 4

makes the next version of a model: the same weights, the same graphs, and one more graph a member, for services that ask
for it (`KARYON_PRECISION=int8`). How far activations reach is measured on varied crops of the images that the model
learnt from (static quantisation, one scale per output channel of weights, one range per activation). What it costs in
accuracy is for `training.evaluate --precision int8` to say.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from app.nuclei.artifact import Artifact, default_store, load_artifact, open_folder, sha256_of
from app.nuclei.engine import proven
from app.nuclei.errors import EngineUnavailable
from app.nuclei.graphs import expand
from app.nuclei.types import UInt8
from training.config import RunConfig
from training.data import lizard
from training.export import new_version, write_golden
from training.train import random_crops, split

TOLERANCE = 0.002
"""Mean difference from the golden maps. What is rounded to bytes is calculated in float32 before, in another order on
another CPU: a few bytes rounded otherwise move maps by up to .15 at a pixel, and by 1e-4 on average. In int8 and in
float32 karyon-lite's golden maps differ by 1.4e-2 on average."""
CROPS = 60
GATE_BEGINS, GATE_ENDS = "ReduceMean", "Mul"
"""A gate of channels (squeeze and excitation) calculates with a handful of numbers: there is nothing to gain."""


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    """Patches as ONNX Runtime asks for them."""

    def __init__(self, patches: Iterable[UInt8]) -> None:
        self.patches = iter(patches)

    def get_next(self) -> dict[str, UInt8] | None:
        patch = next(self.patches, None)
        return None if patch is None else {"patches": patch[None]}


def quantised(graph: Path, into: Path, patches: Iterable[UInt8]) -> None:
    """Write a graph that calculates in int8 where that is worth it.

    The first convolution, the heads with their activations, and gates stay in float32.

    Args:
        graph: as `model_store/README.md` describes it, weights float32 or int8.
        into: the new file.
        patches: (P, P, 3) uint8 each, from whose activations the ranges are taken.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = _simplified(graph, Path(scratch))
        with _quietly():
            quantize_static(
                plain,
                into,
                _Crops(patches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=in_float32(onnx.load(plain).graph),
            )


def in_float32(graph: Any) -> list[str]:
    """Names of the nodes that stay in float32.

    Args:
        graph: ONNX GraphProto whose nodes are in order and have names.
    """
    convolutions = {node.name for node in graph.node if node.op_type == "Conv"}
    before = _touched(graph.node, convolutions, lambda node: (node.input, node.output))
    behind = _touched(reversed(graph.node), convolutions, lambda node: (node.output, node.input))
    gates = _gates(graph.node)
    return [node.name for node in graph.node if not (before[node.name] and behind[node.name]) or node.name in gates]


def _touched(
    nodes: Iterable[Any], wanted: set[str], ends: Callable[[Any], tuple[Sequence[str], Sequence[str]]]
) -> dict[str, bool]:
    """Whether a node of the wanted ones lies before each node, in the direction that they come in."""
    reached: set[str] = set()
    found = {}
    for node in nodes:
        come, go = ends(node)
        found[node.name] = not reached.isdisjoint(come)
        if found[node.name] or node.name in wanted:
            reached.update(go)
    return found


def _gates(nodes: Iterable[Any]) -> set[str]:
    """Names of the nodes from a mean over a map to the product that it is for."""
    inside: set[str] = set()
    names = set()
    for node in nodes:
        if node.op_type == GATE_BEGINS or (not inside.isdisjoint(node.input) and node.op_type != GATE_ENDS):
            inside.update(node.output)
            names.add(node.name)
    return names


def _simplified(graph: Path, scratch: Path) -> Path:
    """The graph with float32 weights, constants folded and shapes known, as quantisation wants it."""
    model = onnx.load(graph)
    expand(model.graph)
    whole, plain = scratch / "whole.onnx", scratch / "plain.onnx"
    onnx.save(model, whole)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(plain)
    onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
    model = onnx.load(plain)
    for index, node in enumerate(model.graph.node):
        node.name = f"node{index}"
    onnx.save(model, plain)
    return plain


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the advice to do what was done."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def with_int8(artifact: Artifact, version: str, store: Path, patches: Sequence[UInt8]) -> Artifact:
    """The next version of a model, which holds graphs in int8 as well; it becomes the active one.

    Args:
        artifact: the model.
        version: of the new one.
        store: folder of models that it goes into.
        patches: (P, P, 3) uint8 each, to take ranges of activations from.

    Raises:
        FileExistsError: this version is there already; a version never changes.
        ArtifactDrift: the folder does not give its golden maps.
        EngineUnavailable: on this CPU the golden maps in int8 would be wrong.
    """
    if not multiplies_exactly():
        raise EngineUnavailable(
            "this CPU cuts off sums of products of bytes at 16 bits, as x86 does without VNNI: "
            "make graphs in int8 on one that does not"
        )
    with new_version(store, artifact.name, version) as folder:
        shutil.copytree(artifact.folder, folder, dirs_exist_ok=True)
        names = [f"{Path(member.file).stem}.int8.onnx" for member in artifact.manifest.members]
        for file, name in zip(artifact.files, names, strict=True):
            quantised(file, folder / name, patches)
        members = [{"file": name, "sha256": sha256_of(folder / name)} for name in names]
        golden = write_golden([folder / name for name in names], folder, "golden-int8.npz", TOLERANCE)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text()) | {"version": version, "int8": {"members": members, "golden": golden}}
        path.write_text(json.dumps(manifest, indent=1) + "\n")
        new = open_folder(folder)
        proven(new)
        proven(new, "int8")
    return open_folder(store / artifact.name / version)


def multiplies_exactly() -> bool:
    """Whether sums of products of bytes come out on this CPU: ONNX Runtime adds two of them in 16 bits on x86 without
    VNNI, and 2 x 255 x 127 is beyond those.
    """
    channels, make, value = 4, onnx.helper, onnx.helper.make_tensor_value_info
    constants = {
        "weights": np.full((channels, channels, 1, 1), 127, np.int8),
        "one": np.float32(1),
        "scale": np.float32(channels * 255 * 127 / 100),
        "zero": np.uint8(0),
        "weights_zero": np.int8(0),
    }
    ranges = ("one", "zero", "weights", "one", "weights_zero", "scale", "zero")
    graph = make.make_graph(
        [make.make_node("QLinearConv", ["bytes", *ranges], ["sums"])],
        "sums",
        [value("bytes", onnx.TensorProto.UINT8, [1, channels, 8, 8])],
        [value("sums", onnx.TensorProto.UINT8, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = session.run(None, {"bytes": np.full((1, channels, 8, 8), 255, np.uint8)})[0]
    return bool(np.all(sums == 100))


def crops_of(artifact: Artifact, data: Path, count: int = CROPS) -> list[UInt8]:
    """The first so many crops that the model's first network learnt from, varied as they were."""
    config = RunConfig.model_validate(artifact.manifest.training["config"])
    crops = random_crops(config, split(config, data)[0])
    return [np.ascontiguousarray(crops[i]["image"].numpy().transpose(1, 2, 0)) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME or NAME@VERSION")
    parser.add_argument("--version", required=True, help="of the model with graphs in int8")
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    parser.add_argument("--store", type=Path, default=default_store(), help="where the model lies")
    parser.add_argument("--into", type=Path, help="store that the new version goes into; unset: the same")
    arguments = parser.parse_args()
    artifact = load_artifact(arguments.model, arguments.store)
    crops = crops_of(artifact, arguments.data)
    print(with_int8(artifact, arguments.version, arguments.into or arguments.store, crops).folder)


if __name__ == "__main__":
    main()
