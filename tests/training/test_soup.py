"""The mean of several runs' weights is a run of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training import card
from training.config import RunConfig
from training.deployed import TrainedMember
from training.export import manifest_of_runs
from training.network import build
from training.soup import mean_of, soup
from training.train import train

OF_ALL = {
    "name": "first",
    "network": "lite-narrow",
    "workers": 0,
    "data": {"sources": ["glas"], "validation": 0.34, "crop": 64, "crops_per_epoch": 8},
    "recipe": {"epochs": 1, "batch": 4, "learning_rate": 2e-3},
}


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run `first`, and `left` and `right`, which went on from it."""
    home = tmp_path_factory.mktemp("runs")
    config = RunConfig.model_validate(OF_ALL)
    began = train(config, data, home / "first")
    for seed, name in enumerate(("left", "right"), 2):
        train(config.model_copy(update={"name": name, "seed": seed, "begin_from": str(began)}), data, home / name)
    return home


def network_of(run: Path) -> dict[str, torch.Tensor]:
    return TrainedMember.read(run / "best.pt").network.state_dict()


def test_its_weights_are_the_mean_and_its_norms_are_not(runs: Path, data: Path, tmp_path: Path) -> None:
    made = network_of(soup([runs / "left", runs / "right"], tmp_path / "both", 8, data))
    left, right = network_of(runs / "left"), network_of(runs / "right")
    for key in (key for key, value in made.items() if value.is_floating_point()):
        middle = (left[key] + right[key]) / 2
        assert torch.allclose(made[key], middle, atol=1e-6) == ("running" not in key), key


def test_a_run_averaged_with_itself_has_its_own_weights(runs: Path) -> None:
    member = TrainedMember.read(runs / "left" / "best.pt")
    for one, other in zip(mean_of([member, member]).parameters(), member.network.parameters(), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy())


def test_its_card_tells_of_every_run_once(runs: Path, data: Path, tmp_path: Path) -> None:
    told = manifest_of_runs([soup([runs / "left", runs / "right"], tmp_path / "both", 8, data)], "m", "1")["training"]
    told["minutes"] = 30.0
    told["averaged_with"][0]["minutes"] = 60.0
    for run in (told, told["averaged_with"][0]):
        run["began_with"]["minutes"] = 45.0
    assert card.compute(told).startswith("2.2 hours of training on ")  # 135 minutes: the beginning counts once
    recipe = card.recipe(told)
    assert "; then the mean of its weights and of right (1 epochs of 8 crops of 64 px" in recipe
    assert recipe.endswith(", norms estimated on 8 crops")


def test_the_folder_goes_on_to_be_trained_from(runs: Path, data: Path, tmp_path: Path) -> None:
    made = soup([runs / "left", runs / "right"], tmp_path / "both", 8, data)
    config = RunConfig.model_validate(OF_ALL | {"name": "later", "begin_from": str(made / "best.pt")})
    train(config, data, tmp_path / "later")
    told = manifest_of_runs([tmp_path / "later"], "m", "1")["training"]
    assert "; then the mean of its weights and of right (" in card.beginning(told)


def test_one_run_has_no_mean(runs: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two runs or more"):
        soup([runs / "left"], tmp_path / "one", 8, data)


def test_a_mean_is_not_averaged_again_lest_its_history_be_lost(runs: Path, data: Path, tmp_path: Path) -> None:
    made = soup([runs / "left", runs / "right"], tmp_path / "both", 8, data)
    with pytest.raises(ValueError, match="both: a mean already; name the runs that it was made of"):
        soup([made, runs / "first"], tmp_path / "all", 8, data)


def test_other_networks_have_no_mean(runs: Path) -> None:
    other = TrainedMember("efficient-lite", build("efficient-lite"))
    with pytest.raises(ValueError, match="weights of efficient-lite and lite-narrow have no mean"):
        mean_of([TrainedMember.read(runs / "left" / "best.pt"), other])


def test_a_run_that_may_know_the_images_of_the_validation_is_refused(runs: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in (runs / "right").glob("*.*"):
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    config["data"]["split_seed"] = 1
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="it may know images that this run is judged by"):
        soup([runs / "left", other], tmp_path / "both", 8, data)


def test_a_folder_that_is_there_stays_as_it_is(runs: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        soup([runs / "left", runs / "right"], tmp_path, 8, data)
