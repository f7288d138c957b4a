"""A model folder becomes a run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.nuclei import load_artifact
from training import train as training
from training.config import DataConfig, RunConfig
from training.deployed import Deployed, TrainedMember
from training.distributed import Team
from training.export import export_graph, manifest_of_runs, write_artifact
from training.network import activate, build
from training.restore import NotRestored, restore, weights_of, write_runs
from training.storage import shrink
from training.train import train

# torch's exporter warns about its own internals
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
OWN = Team(0, 1, torch.device("cpu"))


def crops() -> Tensor:
    return torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def used(name: str) -> nn.Module:
    """A network whose norms have seen something."""
    torch.manual_seed(5)
    network = build(name, dropout=0.0)
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.2, 0.2)
            norm.momentum = 1.0  # they know these crops at once
        network(crops())
    return network.eval()


def furthest(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        pairs = zip(activate(one(images)), activate(other(images)), strict=True)
        return max(float((a - b).abs().max()) for a, b in pairs)


NAMES = ["lite-narrow", "efficient-lite", "efficient-lite-refined", "seresnext50-narrow"]


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, nn.Module, Path]:
    """A network's name, the network, and its graph."""
    graph = tmp_path_factory.mktemp("graph") / "graph.onnx"
    network = used(request.param)
    export_graph(network, graph)
    return request.param, network, graph


def test_a_restored_network_answers_as_the_one_that_was_exported(exported: tuple[str, nn.Module, Path]) -> None:
    name, network, graph = exported
    assert furthest(restore(name, weights_of(graph), crops()), network, crops()) <= 1e-4


def test_its_norms_know_what_comes_to_them(exported: tuple[str, nn.Module, Path]) -> None:
    name, _, graph = exported
    network = restore(name, weights_of(graph), crops())
    learning = restore(name, weights_of(graph), crops()).train()
    for dropout in (m for m in learning.modules() if isinstance(m, nn.Dropout2d)):
        dropout.p = 0.0
    assert furthest(learning, network, crops()) <= 0.05  # its own batch's statistics, or those it was given


def test_weights_kept_as_int8_come_back_as_the_graph_expands_them(exported: tuple[str, nn.Module, Path]) -> None:
    name, network, graph = exported
    small = graph.with_name("small.onnx")
    small.write_bytes(graph.read_bytes())
    shrink(small)
    assert 0 < furthest(restore(name, weights_of(small), crops()), network, crops()) <= 0.1


def test_a_graph_of_another_network_is_refused(exported: tuple[str, nn.Module, Path]) -> None:
    with pytest.raises(NotRestored, match=r"the graph has no|in the graph"):
        restore("lite", weights_of(exported[2]), crops())


@pytest.fixture(scope="module")
def shipped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model of one run that began with another's weights."""
    runs = tmp_path_factory.mktemp("runs")
    config = RunConfig.model_validate(
        {
            "name": "first",
            "network": "lite-narrow",
            "workers": 0,
            "data": {"sources": ["glas"], "validation": 0.34, "crop": 64, "crops_per_epoch": 8},
            "recipe": {"epochs": 1, "batch": 4, "learning_rate": 2e-3},
        }
    )
    began = train(config, data, runs / "first")
    train(config.model_copy(update={"name": "second", "begin_from": str(began)}), data, runs / "second")
    manifest = manifest_of_runs([runs / "second"], "small", "1")
    write_artifact([TrainedMember.read(runs / "second" / "best.pt")], manifest, runs / "store", "# card\n")
    return runs / "store"


def test_training_goes_on_from_a_model_and_its_history_stays(shipped: Path, data: Path, tmp_path: Path) -> None:
    (run,) = write_runs(load_artifact("small", shipped), tmp_path / "again", data)
    earlier = RunConfig.model_validate_json((run / "config.json").read_text())
    assert furthest(TrainedMember.read(run / "best.pt").network, Deployed(used("lite-narrow")).network, crops()) > 0
    later = earlier.model_copy(update={"name": "third", "begin_from": str(run / "best.pt")})
    train(later, data, tmp_path / "third")
    told = manifest_of_runs([tmp_path / "third"], "small", "2")["training"]
    names = [told["config"]["name"], told["began_with"]["config"]["name"]]
    assert [*names, told["began_with"]["began_with"]["config"]["name"]] == ["third", "second", "first"]


def test_a_restored_run_is_exported_as_the_model_it_was(shipped: Path, data: Path, tmp_path: Path) -> None:
    model = load_artifact("small", shipped)
    (run,) = write_runs(model, tmp_path / "again", data)
    told = manifest_of_runs([run], "small", "1")
    kept = json.loads((model.folder / "manifest.json").read_text())
    assert {key: told[key] for key in ("postprocess", "calibration")} == {
        key: kept[key] for key in ("postprocess", "calibration")
    }
    assert told["training"]["minutes"] == kept["training"]["minutes"]


def test_a_run_folder_that_is_there_stays_as_it_is(shipped: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_runs(load_artifact("small", shipped), tmp_path, data)


@pytest.mark.parametrize(
    "changed", [{"sources": ("glas", "dpath")}, {"validation": 0.5}, {"split_seed": 1}], ids=lambda c: next(iter(c))
)
def test_weights_that_may_know_the_images_of_the_validation_are_refused(
    shipped: Path, data: Path, tmp_path: Path, changed: dict[str, object]
) -> None:
    (run,) = write_runs(load_artifact("small", shipped), tmp_path / "again", data)
    earlier = RunConfig.model_validate_json((run / "config.json").read_text())
    other = DataConfig.model_validate(earlier.data.model_dump() | changed)
    later = earlier.model_copy(update={"begin_from": str(run / "best.pt"), "data": other})
    with pytest.raises(ValueError, match=f"learnt with other {next(iter(changed))}: it may know images"):
        training.start(later, OWN)
