"""Graphs that calculate in int8: what they keep in float32, and how they come into a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.nuclei import load_artifact
from app.nuclei.artifact import Artifact, default_store
from app.nuclei.engine import OnnxEngine
from app.nuclei.errors import EngineUnavailable
from app.nuclei.graphs import MAPS
from tests.training.layouts import write_lizard
from training import int8
from training.export import golden_patch
from training.int8 import crops_of, in_float32, multiplies_exactly, quantised, with_int8


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return load_artifact("karyon-lite")


@pytest.fixture(scope="module")
def graph(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> onnx.GraphProto:
    """karyon-lite in int8."""
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    quantised(artifact.files[0], path, [golden_patch()])
    return onnx.load(path).graph


def _dequantised(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}


def test_all_but_a_few_convolutions_multiply_bytes(graph: onnx.GraphProto) -> None:
    bytewise = _dequantised(graph)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    plain = [node for node in convolutions if node.input[1] not in bytewise]
    assert len(plain) == 1 + 3 + 3 * 2  # the first; the heads; two in each of three gates
    assert convolutions[0] in plain


def test_nothing_is_rounded_to_bytes_between_the_heads_and_the_maps(graph: onnx.GraphProto) -> None:
    makers = {name: node for node in graph.node for name in node.output}
    waiting, seen = list(MAPS), []
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type != "Conv":
            seen.append(node.op_type)
            waiting += node.input
    assert "Softmax" in seen
    assert "QuantizeLinear" not in seen


def test_a_chain_keeps_its_ends_and_its_gate_in_float32() -> None:
    make = onnx.helper.make_node
    chain = [
        make("Cast", ["patches"], ["a"], "cast", to=1),
        make("Conv", ["a", "w"], ["b"], "first"),
        make("Relu", ["b"], ["c"], "active"),
        make("Conv", ["c", "w"], ["d"], "inner"),
        make("ReduceMean", ["d"], ["e"], "mean"),
        make("Conv", ["e", "w"], ["f"], "squeeze"),
        make("Sigmoid", ["f"], ["g"], "gate"),
        make("Mul", ["d", "g"], ["h"], "gated"),
        make("Conv", ["h", "w"], ["i"], "head"),
        make("Softmax", ["i"], ["maps"], "softmax"),
    ]
    graph = onnx.helper.make_graph(chain, "chain", [], [])
    assert in_float32(graph) == ["cast", "first", "mean", "squeeze", "gate", "head", "softmax"]


@pytest.mark.skipif(not multiplies_exactly(), reason="graphs in int8 are not made on a CPU without VNNI")
def test_a_model_comes_to_graphs_in_int8_by_a_version_of_its_own(artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(default_store() / "karyon-lite", tmp_path / "karyon-lite")
    new = with_int8(artifact, "next", tmp_path, [golden_patch()])
    assert load_artifact("karyon-lite", tmp_path).version == "next"
    assert (new.sha256, new.manifest.members) == (artifact.sha256, artifact.manifest.members)
    assert OnnxEngine.open(new, precision="int8").predict(golden_patch()[None]).mean_from(artifact.golden[1]) < 0.02
    with pytest.raises(FileExistsError, match="karyon-lite@next is there already; give another version"):
        with_int8(artifact, "next", tmp_path, [golden_patch()])


def test_a_cpu_whose_sums_of_bytes_are_cut_off_makes_no_graphs_in_int8(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "multiplies_exactly", lambda: False)
    with pytest.raises(EngineUnavailable, match="as x86 does without VNNI"):
        with_int8(artifact, "next", tmp_path, [golden_patch()])
    assert not list(tmp_path.iterdir())


def test_ranges_are_taken_from_varied_crops_of_what_the_model_learnt_from(artifact: Artifact, tmp_path: Path) -> None:
    data = write_lizard(tmp_path, [f"glas_{i}" for i in range(16)], (256, 300))
    crops = crops_of(artifact, data, 3)
    side = artifact.manifest.training["config"]["data"]["crop"]
    assert [crop.shape for crop in crops] == [(side, side, 3)] * 3
    assert not np.array_equal(crops[0], crops[1])
    np.testing.assert_array_equal(crops[2], crops_of(artifact, data, 3)[2])
