"""A batch that stays on the device gives what the host would have given, bit for bit; here on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.transformers.float16 import convert_float_to_float16

from app.nuclei import Segmenter, graphs, load_artifact
from app.nuclei.artifact import HALF_TOLERANCE, Artifact, prove
from app.nuclei.engine import CPU, CUDA, OnnxEngine, mean, provider_options
from app.nuclei.errors import EngineUnavailable
from app.nuclei.types import HoverMaps
from app.nuclei.views import PAPER_VIEWS, VIEWS, View, average
from tests.drawn import draw_tissue


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return load_artifact("karyon-lite")


@pytest.fixture(scope="module")
def plain(artifact: Artifact) -> OnnxEngine:
    return OnnxEngine.open(artifact, threads=1)


@pytest.fixture(scope="module")
def boarded(artifact: Artifact) -> OnnxEngine:
    return OnnxEngine.open(artifact, threads=1, boarded=True)


@pytest.fixture(scope="module")
def half(artifact: Artifact) -> OnnxEngine:
    return OnnxEngine.open(artifact, threads=1, precision="float16", boarded=True)


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph, providers=[CPU])


def _patches(count: int, size: int = 256) -> np.ndarray:
    return np.stack([draw_tissue(size, size, seed) for seed in range(count)])


def _maps(seed: int, count: int, size: int = 6) -> HoverMaps:
    rng = np.random.default_rng(seed)
    return HoverMaps(*(rng.random((count, size, size, *c), np.float32) for c in ((), (2,), (7,))))


def test_a_bound_run_gives_the_same_bits_as_a_plain_one(plain: OnnxEngine, boarded: OnnxEngine) -> None:
    assert boarded.predict(_patches(2)).furthest_from(plain.predict(_patches(2))) == 0


def test_views_averaged_on_the_device_are_those_averaged_on_the_host(plain: OnnxEngine, boarded: OnnxEngine) -> None:
    here = plain.predict_views(_patches(2), PAPER_VIEWS)
    there = boarded.predict_views(_patches(2), PAPER_VIEWS)
    assert there.furthest_from(here) < 1e-6
    assert there.ballot is not None
    assert here.ballot is not None
    assert there.ballot.runs == here.ballot.runs == 3
    assert (there.ballot.votes != here.ballot.votes).mean() < 1e-4


@pytest.mark.parametrize("views", [VIEWS[:1], PAPER_VIEWS, VIEWS], ids=len)
def test_the_device_sees_what_the_host_sees(views: tuple[View, ...]) -> None:
    patches = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8)
    (seen,) = _session(graphs.seeing(views)).run(None, {"patches": patches})
    np.testing.assert_array_equal(seen, np.concatenate([view.see(patches) for view in views]))


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("views", [VIEWS[:1], PAPER_VIEWS, VIEWS], ids=len)
def test_the_device_brings_maps_back_and_averages_as_the_host_does(views: tuple[View, ...], members: int) -> None:
    given = [_maps(m, 2 * len(views)) for m in range(members)]
    inputs = {f"{name}.{m}": getattr(maps, name) for m, maps in enumerate(given) for name in graphs.MAPS}
    there = _session(graphs.folding(views, members)).run(None, {"count": np.array([2]), **inputs})
    rows = iter([mean([maps[2 * i : 2 * i + 2] for maps in given]) for i in range(len(views))])
    here = average(lambda patches: next(rows), np.zeros((2, 6, 6, 3), np.uint8), views)
    assert HoverMaps(*there[:3]).furthest_from(here) == 0
    assert len(there) == (3 if here.ballot is None else 4)
    if here.ballot is not None:
        np.testing.assert_array_equal(there[3], here.ballot.votes)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (33, 64)])
def test_batches_are_filled_up_to_a_power_of_two_where_that_helps(plain: OnnxEngine, count: int, rows: int) -> None:
    assert (replace(plain, pads=True).padded(count), plain.padded(count)) == (rows, count)


@pytest.mark.parametrize("where", ["plain", "boarded"])
def test_padding_does_not_come_back_and_changes_nothing(request: pytest.FixtureRequest, where: str) -> None:
    engine: OnnxEngine = request.getfixturevalue(where)
    patches = _patches(3)
    padded = replace(engine, pads=True).predict(patches)
    assert len(padded) == 3
    assert padded.furthest_from(engine.predict(patches)) <= 1e-5


def test_a_staged_batch_ends_as_if_it_had_not_been_staged(boarded: OnnxEngine) -> None:
    staged = boarded.stage(_patches(2), PAPER_VIEWS)
    boarded.predict(_patches(1))
    assert boarded.finish(staged).furthest_from(boarded.predict_views(_patches(2), PAPER_VIEWS)) == 0


def test_a_batch_on_the_device_can_be_ended(boarded: OnnxEngine) -> None:
    staged = boarded.stage(_patches(1), PAPER_VIEWS)
    boarded.terminate()
    with pytest.raises(Exception, match="terminate flag"):
        boarded.finish(staged)
    boarded.resume()
    assert len(boarded.finish(staged)) == 1


def test_giving_memory_back_on_the_device_changes_nothing(boarded: OnnxEngine, artifact: Artifact) -> None:
    boarded.shrink()
    prove(boarded, artifact)


def test_half_precision_gives_float32_maps_near_those_of_float32(half: OnnxEngine, plain: OnnxEngine) -> None:
    maps, whole = half.predict(_patches(1)), plain.predict(_patches(1))
    assert {m.dtype for m in (maps.np_prob, maps.hv, maps.type_prob)} == {np.dtype(np.float32)}
    assert 0 < maps.furthest_from(whole) < HALF_TOLERANCE
    np.testing.assert_allclose(maps.type_prob.sum(-1), 1, atol=1e-5)  # activations are not rounded to half


def test_a_model_in_half_precision_is_proven_with_a_tolerance_of_its_own(half: OnnxEngine, artifact: Artifact) -> None:
    assert artifact.manifest.golden.tolerance < prove(half, artifact) < HALF_TOLERANCE


def test_half_precision_finds_the_same_nuclei(half: OnnxEngine, artifact: Artifact) -> None:
    image = draw_tissue(256, 256)
    whole, found = (Segmenter(artifact, engine).segment(image) for engine in (None, half))
    assert found.counts == whole.counts
    assert (found.instance_map == whole.instance_map).mean() > 0.999


def test_half_precision_holds_in_larger_patches(half: OnnxEngine, plain: OnnxEngine) -> None:
    patches = _patches(1, 512)
    assert half.predict(patches).furthest_from(plain.predict(patches)) < HALF_TOLERANCE


def test_what_is_added_up_over_whole_maps_is_not_added_up_in_half_precision(artifact: Artifact) -> None:
    # A GPU gave NaN for a map of 65536 pixels; a CPU adds in float32 in any case, so here only the graph can tell.
    graph = onnx.load_from_string(graphs.halved(artifact.files[0], convert_float_to_float16)).graph
    made_by = {name: node for node in graph.node for name in node.output}
    summed = [made_by[node.input[0]] for node in graph.node if node.op_type in graphs.REDUCTIONS]
    assert [(n.op_type, n.attribute[0].i) for n in summed] == [("Cast", onnx.TensorProto.FLOAT)] * 3


def _converting_as_1_31(model: onnx.ModelProto, **settings: Any) -> onnx.ModelProto:
    """Before 1.32, ONNX Runtime's converter gave every node that stays in float32 a cast of its own, named alike."""
    model = convert_float_to_float16(model, **settings)
    for cast in [node for node in model.graph.node if node.name.endswith("_cast_to_fp32_node")]:
        users = sum(cast.output[0] in node.input for node in model.graph.node)
        model.graph.node.extend([cast] * (users - 1))
    return model


def test_a_value_that_two_nodes_take_in_float32_is_cast_once(tmp_path: Path) -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("Cast", ["patches"], ["x"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("ReduceMean", ["twice"], ["mean"], keepdims=1),
        helper.make_node("Softmax", ["twice"], ["share"]),
        helper.make_node("Mul", ["mean", "share"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(*side, [1, 3]) for side in (("patches", 2), ("y", 1))]
    model = helper.make_model(
        helper.make_graph(nodes, "karyon", sides[:1], sides[1:]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, tmp_path / "model.onnx")
    given = {"patches": np.array([[1, 2, 3]], np.uint8)}
    (whole,) = _session(model.SerializeToString()).run(None, given)
    (halved,) = _session(graphs.halved(tmp_path / "model.onnx", _converting_as_1_31)).run(None, given)
    np.testing.assert_allclose(halved, whole, rtol=1e-3)


def test_a_gpu_is_told_what_it_would_otherwise_do_wrong() -> None:
    assert provider_options(CPU) == {}
    assert provider_options(CUDA, "float16", 2**30) == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "1",
        "gpu_mem_limit": "1073741824",
    }
    assert provider_options(CUDA)["use_tf32"] == "0"


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_runtime_that_falls_back_silently_is_refused(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(EngineUnavailable, match=r"CUDAExecutionProvider .* driver, CUDA and cuDNN"):
        OnnxEngine.open(artifact, CUDA)
