"""The shipped model on the CPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.nuclei import engine as engines
from app.nuclei import load_artifact
from app.nuclei.artifact import Artifact, prove
from app.nuclei.engine import CPU, OnnxEngine, cpu_limit, mean, proven
from app.nuclei.errors import ArtifactDrift, EngineUnavailable
from app.nuclei.types import HoverMaps
from training.int8 import multiplies_exactly


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return load_artifact("karyon-lite")


@pytest.fixture(scope="module", params=["float32", "int8"])
def engine(artifact: Artifact, request: pytest.FixtureRequest) -> OnnxEngine:
    return OnnxEngine.open(artifact, threads=1, precision=request.param)


def test_the_shipped_model_gives_its_golden_maps(artifact: Artifact) -> None:
    assert prove(proven(artifact), artifact) <= artifact.manifest.golden.tolerance


def test_in_int8_it_gives_them_where_a_cpu_adds_bytes_exactly_and_is_refused_elsewhere(artifact: Artifact) -> None:
    if multiplies_exactly():
        assert prove(proven(artifact, "int8"), artifact) <= artifact.manifest.golden.tolerance
    else:
        with pytest.raises(ArtifactDrift, match="golden pair in int8 off by"):
            proven(artifact, "int8")


def test_maps_in_int8_differ_from_the_others_by_more_than_their_golden_pair_allows(artifact: Artifact) -> None:
    int8 = artifact.manifest.int8
    assert int8
    off = artifact.test_pair(int8.golden)[1].mean_from(artifact.golden[1])
    assert int8.golden.tolerance < off < 0.02


def test_in_int8_the_graphs_for_it_run_side_by_side_as_well(artifact: Artifact) -> None:
    one, two = (OnnxEngine.open(artifact, threads=threads, precision="int8") for threads in (1, 2))
    patches = np.repeat(artifact.golden[0], 4, axis=0)
    assert (one.abreast, two.abreast) == (1, 2)
    assert two.predict(patches).mean_from(one.predict(patches)) <= 1e-6


def test_a_model_without_graphs_in_int8_is_not_opened_in_it(artifact: Artifact) -> None:
    without = replace(artifact, manifest=replace(artifact.manifest, int8=None))
    with pytest.raises(EngineUnavailable, match=f"karyon-lite@{artifact.version} has no graphs that calculate in int8"):
        OnnxEngine.open(without, precision="int8")


def test_the_provider_is_read_back(engine: OnnxEngine) -> None:
    assert (engine.provider, engine.device) == (CPU, "cpu")


@pytest.mark.parametrize("size", [256, 512])
def test_maps_are_probabilities_of_the_patch_size(engine: OnnxEngine, size: int) -> None:
    maps = engine.predict(np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8))
    assert (maps.np_prob.shape, maps.hv.shape, maps.type_prob.shape) == (
        (1, size, size),
        (1, size, size, 2),
        (1, size, size, 7),
    )
    np.testing.assert_allclose(maps.type_prob.sum(-1), 1, atol=1e-5)


def test_a_patch_is_the_same_alone_and_among_others(engine: OnnxEngine, artifact: Artifact) -> None:
    patch = artifact.golden[0]
    others = np.random.default_rng(1).integers(0, 256, (3, 256, 256, 3), np.uint8)
    together = engine.predict(np.concatenate([others, patch]))
    assert together[3:].furthest_from(engine.predict(patch)) <= 1e-5


def test_a_run_that_is_ended_says_so_and_the_next_one_runs(engine: OnnxEngine, artifact: Artifact) -> None:
    before = engine.predict(artifact.golden[0])
    engine.terminate()
    with pytest.raises(Exception, match="terminate flag"):
        engine.predict(artifact.golden[0])
    engine.resume()
    assert engine.predict(artifact.golden[0]).furthest_from(before) <= 1e-5


def test_giving_memory_back_changes_nothing(engine: OnnxEngine, artifact: Artifact) -> None:
    before = engine.predict(artifact.golden[0])
    engine.shrink()
    assert engine.predict(artifact.golden[0]).furthest_from(before) <= 1e-5


def test_members_are_averaged_as_probabilities() -> None:
    a, b = (
        HoverMaps(*(np.full(s, v, np.float32) for s in ((1, 2, 2), (1, 2, 2, 2), (1, 2, 2, 7)))) for v in (0.2, 0.6)
    )
    assert mean([a, b]).np_prob[0, 0, 0] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"), "is not installed: pip install"),
        (ImportError("libcudart.so.12: cannot open"), r"cannot be loaded \(libcudart.so.12: cannot open\)"),
    ],
)
def test_without_a_runtime_it_says_what_to_install(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, error: ImportError, said: str
) -> None:
    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "onnxruntime":
                raise error

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(EngineUnavailable, match=said):
        OnnxEngine.open(artifact)


def test_a_device_that_is_not_there_is_refused(artifact: Artifact) -> None:
    with pytest.raises(EngineUnavailable, match="CUDA"):
        OnnxEngine.open(artifact, "CUDAExecutionProvider")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
    ids=["v2", "v2 unlimited", "v1", "v1 unlimited", "no control group"],
)
def test_the_control_groups_quota_is_obeyed(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert engines._cgroup_quota(tmp_path) == expected


def test_at_least_one_thread_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_cgroup_quota", lambda: 0.25)
    assert cpu_limit() == 1
