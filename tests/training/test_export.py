"""A trained network becomes a folder that serves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16

from app.nuclei import Segmenter, graphs, load_artifact
from app.nuclei.artifact import HALF_TOLERANCE, prove
from app.nuclei.engine import OnnxEngine
from app.nuclei.types import HoverMaps, UInt8
from tests.drawn import InkEngine, draw_tissue
from training import card, evaluate, export, levels
from training.config import DistillConfig, RunConfig
from training.data import lizard
from training.deployed import Deployed, TorchEngine, TrainedMember
from training.export import Disagreement, export_graph, golden_patch, licence_note, manifest_of_runs, write_artifact
from training.network import build
from training.record import remember_device, runs_of
from training.scores import PAIRED
from training.storage import quantise, shrink

# torch's exporter warns about its own internals
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def _member(seed: int) -> TrainedMember:
    torch.manual_seed(seed)
    return TrainedMember("lite-narrow", build("lite-narrow").eval())


@pytest.fixture(scope="module")
def members() -> list[TrainedMember]:
    return [_member(0), _member(1)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    run = tmp_path_factory.mktemp("run")
    (run / "config.json").write_text(RunConfig(name="run", network="lite-narrow").model_dump_json())
    return manifest_of_runs([run], "pair", "1")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, members: list[TrainedMember], manifest: dict[str, object]) -> Path:
    """A store with one model of two members."""
    store = tmp_path_factory.mktemp("store")
    write_artifact(members, manifest, store, "# card\n")
    return store


@pytest.mark.parametrize(("batch", "size"), [(1, 256), (3, 256), (1, 512)])
def test_the_model_answers_like_torch(store: Path, members: list[TrainedMember], batch: int, size: int) -> None:
    patches = np.random.default_rng(batch).integers(0, 256, (batch, size, size, 3), np.uint8)
    theirs = [TorchEngine(Deployed(m.network)).predict(patches) for m in members]
    ours = OnnxEngine.open(load_artifact("pair", store)).predict(patches)
    np.testing.assert_allclose(ours.np_prob, (theirs[0].np_prob + theirs[1].np_prob) / 2, atol=1e-4)
    np.testing.assert_allclose(ours.hv, (theirs[0].hv + theirs[1].hv) / 2, atol=1e-4)
    np.testing.assert_allclose(ours.type_prob, (theirs[0].type_prob + theirs[1].type_prob) / 2, atol=1e-4)


def test_an_exported_model_proves_itself_and_segments(store: Path) -> None:
    artifact = load_artifact("pair@1", store)
    segmenter = Segmenter(artifact)
    assert prove(segmenter.engine, artifact) <= artifact.manifest.golden.tolerance
    assert segmenter.segment(golden_patch()).instance_map.shape == (256, 256)


def test_the_manifest_names_data_licence_split_and_weights(store: Path) -> None:
    manifest = load_artifact("pair", store).manifest
    assert manifest.licence == manifest.training["licence"] == "CC BY-NC-SA 4.0"
    assert "by slide where Lizard names it (dpath), else by image" in manifest.training["split"]
    assert len({m.sha256 for m in manifest.members}) == 2
    assert (store / "pair" / "1" / "LICENSE").read_text().startswith("The weights")


def test_a_version_is_never_written_over(
    store: Path, members: list[TrainedMember], manifest: dict[str, object]
) -> None:
    with pytest.raises(FileExistsError, match="pair@1"):
        write_artifact(members, manifest, store, "")


def test_a_graph_that_differs_from_torch_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "AGREEMENT", -1.0)
    with pytest.raises(Disagreement):
        export_graph(_member(2).network, tmp_path / "graph.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_writes_scores_pictures_and_the_card(store: Path, data_root: Path, tmp_path: Path) -> None:
    artifact = load_artifact("pair", store)
    samples = lizard.read(data_root / "lizard", ["consep"])[:2]
    result = evaluate.run(artifact, samples, "consep", "fast", tmp_path)
    card.update(artifact, result, tmp_path / "reliability.png")
    assert json.loads((tmp_path / "metrics.json").read_text())["scores"] == result["scores"]
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".png"}
    assert load_artifact("pair", store).manifest.scores["images"] == 2
    assert "95 % interval" in (artifact.folder / "MODEL_CARD.md").read_text()
    assert (artifact.folder / "reliability.png").exists()


def test_a_card_keeps_the_studies_that_were_not_made_anew(store: Path, data_root: Path, tmp_path: Path) -> None:
    artifact = load_artifact("pair", store)
    samples = lizard.read(data_root / "lizard", ["consep"])[:2]
    result = evaluate.run(artifact, samples, "consep", "fast", tmp_path)
    result["detail"]["views"] = evaluate.of_views(artifact, samples, "fast")
    written = artifact.folder / "MODEL_CARD.md"
    written.write_text("# card\n\n## What spoils it\n\n| blur |\n\n## What int8 costs\n\nnothing\n\n## Else\n\nold\n")
    card.update(artifact, result, tmp_path / "reliability.png")
    first = written.read_text()
    assert "## What spoils it\n\n| blur |\n\n## What int8 costs\n\nnothing\n\n## What it does not know" in first
    assert "`accurate` | less the profile above" in first
    assert "old" not in first.splitlines()
    card.update(artifact, result, tmp_path / "reliability.png")
    assert written.read_text() == first


def test_levels_end_with_what_the_model_scores_as_it_serves(store: Path, data_root: Path) -> None:
    artifact = load_artifact("pair", store)
    samples = lizard.read(data_root / "lizard", ["consep"])[:1]
    members = levels.members_of(artifact)
    found = levels.measure(artifact, members, samples)
    assert [level.title for level in found] == [
        f"{name}, `{profile}`" for name in ("lite-narrow", "lite-narrow", "all") for profile in ("fast", "accurate")
    ]
    (served,) = evaluate.evaluate(Segmenter(artifact), samples, "accurate")
    (last,) = found[-1].scores
    for name in ("binary", "classes", "dice", "detection", "counts"):
        np.testing.assert_allclose(getattr(last, name), getattr(served, name), err_msg=name)
    assert levels.table(found).count("\n") == 7


def test_a_model_of_one_member_has_the_levels_of_that_member_alone() -> None:
    lite = load_artifact("karyon-lite")
    found = levels.measure(lite, levels.members_of(lite), [])
    assert [level.title for level in found] == [f"efficient-lite-full, `{p}`" for p in ("fast", "accurate")]


def test_an_engine_that_remembers_looks_at_a_patch_once() -> None:
    seen: list[int] = []

    class Counting(InkEngine):
        def predict(self, patches: UInt8) -> HoverMaps:
            seen.append(len(patches))
            return super().predict(patches)

    one, other = draw_tissue(64, 64, 1), draw_tissue(64, 64, 2)
    engine = levels.Remembering(Counting())
    both = engine.predict(np.stack([one, other]))
    assert engine.predict(np.stack([other, one, one]))[1:].furthest_from(both[[0, 0]]) == 0
    assert seen == [1, 1]


def test_a_model_does_not_differ_from_itself(store: Path, data_root: Path) -> None:
    artifact = load_artifact("pair", store)
    rows = evaluate.differences(
        Segmenter(artifact), Segmenter(artifact), lizard.read(data_root / "lizard", ["consep"])[:1], "fast"
    )
    assert rows.count("| +0.000 | +0.000 to +0.000 |") + rows.count("| +nan | +nan to +nan |") == len(PAIRED)


def test_the_manifest_of_a_resumed_run_adds_up_its_minutes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(RunConfig(name="run", network="lite-narrow").model_dump_json())
    (tmp_path / "metrics.csv").write_text("epoch,minutes\n0,4.5\n1,5.25\n")
    assert manifest_of_runs([tmp_path], "pair", "1")["training"]["minutes"] == 9.8


def test_a_manifest_and_its_card_tell_what_a_run_began_with(tmp_path: Path) -> None:
    first = RunConfig(name="first", network="efficient-lite", encoder_weights="efficientnet_lite0")
    later = RunConfig(
        name="later",
        network="efficient-lite",
        begin_from=str(tmp_path / "first" / "best.pt"),
        distill=DistillConfig(teacher="pair"),
    )
    plain = RunConfig(name="plain", network="lite")
    for config, minutes in ((first, 30), (later, 60), (plain, 12)):
        (tmp_path / config.name).mkdir()
        (tmp_path / config.name / "config.json").write_text(config.model_dump_json())
        (tmp_path / config.name / "metrics.csv").write_text(f"epoch,minutes\n0,{minutes}\n")
    training = manifest_of_runs([tmp_path / "later"], "pair", "1")["training"]
    assert training["began_with"]["config"]["name"] == "first"
    assert card.beginning(training) == (
        "from the weights of first (50 epochs, encoder from the ImageNet weights of efficientnet_lite0, "
        "the rest from random ones)"
    )
    assert card.compute(training) == "1.5 hours of training, its teacher's not among them; 4.12 GFLOP a 256x256 view"
    assert ", taught by the labels and by the maps of pair; " in card.recipe(training)
    assert ", its averaged weights with batch norms estimated on" not in card.recipe(training)
    assert "EfficientNet-Lite0" in licence_note(training)
    assert "EfficientNet-Lite0" not in licence_note({"config": {}})
    both = manifest_of_runs([tmp_path / "plain", tmp_path / "later"], "pair", "1")["training"]
    assert [card.recipe(run) for run in runs_of(both)][1] == card.recipe(training)
    assert card.compute(both) == "1.7 hours of training, its teacher's not among them; 12.20 GFLOP a 256x256 view"
    assert "EfficientNet-Lite0" in licence_note(both)


def test_the_card_of_an_early_manifest_tells_its_cost_as_well() -> None:
    assert card.compute({"config": {}, "minutes": 90, "gflop": [8.08]}).endswith("training; 8.08 GFLOP a 256x256 view")


def test_int8_weights_are_smaller_and_nearly_the_same_model(store: Path, tmp_path: Path) -> None:
    graph = load_artifact("pair", store).files[0]
    small = tmp_path / "small.onnx"
    small.write_bytes(graph.read_bytes())
    shrink(small)
    patches = golden_patch()[None]
    assert small.stat().st_size < 0.6 * graph.stat().st_size
    assert 0 < export._run(small, patches).furthest_from(export._run(graph, patches)) < 0.05


def test_int8_weights_are_expanded_before_a_network_calculates_in_half_precision(store: Path, tmp_path: Path) -> None:
    small, half = tmp_path / "small.onnx", tmp_path / "half.onnx"
    small.write_bytes(load_artifact("pair", store).files[0].read_bytes())
    shrink(small)
    half.write_bytes(graphs.halved(small, convert_float_to_float16))
    patches = golden_patch()[None]
    assert 0 < export._run(half, patches).furthest_from(export._run(small, patches)) < HALF_TOLERANCE
    assert {t.data_type for t in onnx.load(half).graph.initializer}.isdisjoint({onnx.TensorProto.INT8})


def test_a_graph_says_nothing_of_the_machine_it_was_made_on(store: Path) -> None:
    content = load_artifact("pair", store).files[0].read_bytes()
    assert b".py" not in content
    assert str(Path.cwd()).encode() not in content


def test_a_rounded_weight_is_within_half_a_step() -> None:
    weights = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32)
    weights[2] = 0
    codes, scales = quantise(weights)
    assert codes.dtype == np.int8
    assert (np.abs(codes * scales - weights) <= scales / 2 + 1e-7).all()
    assert not codes[2].any()


def test_a_card_tells_devices_norms_and_teachers_that_are_runs(tmp_path: Path) -> None:
    config = RunConfig(name="r", network="lite", distill=DistillConfig(teacher_runs=("runs/a", "runs/b")))
    config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"ema": 0.9, "norm_crops": 96})})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "metrics.csv").write_text("epoch,minutes\n0,30\n")
    remember_device(tmp_path, torch.device("cpu"))
    training = manifest_of_runs([tmp_path], "r", "1")["training"]
    assert re.match(
        r"0\.5 hours of training on \d+ CPU cores \(.+\), its teacher's not among them;", card.compute(training)
    )
    begun = training | {"began_with": training | {"device": None, "minutes": 600.0}}
    assert card.compute(begun).startswith("10.5 hours of training, its teacher's not among them;")
    assert ", taught by the labels and by the maps of a and b;" in card.recipe(training)
    assert card.recipe(training).endswith("its averaged weights with batch norms estimated on 96 crops")
