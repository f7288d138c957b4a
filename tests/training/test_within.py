"""A run takes as long as the machine is there, whatever the machine's speed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from training import within as tool
from training.config import RunConfig
from training.distributed import Team
from training.ensemble import UNFINISHED
from training.profiling import profile
from training.train import Paused, train
from training.within import SHARE, fitted, within

ALONE = Team(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "quick",
            "network": "lite-narrow",
            "threads": 1,
            "workers": 0,
            "data": {"sources": ["glas"], "validation": 0.34, "crop": 64, "crops_per_epoch": 4},
            "recipe": {"epochs": 2, "batch": 2},
        }
    )


@pytest.mark.parametrize("rate", [0.01, 3.7, 416.0])
@pytest.mark.parametrize("seconds", [-5.0, 1.0, 300.0])
def test_as_many_whole_batches_are_planned_as_fit_into_the_time(config: RunConfig, rate: float, seconds: float) -> None:
    crops, batch = fitted(config, rate, seconds).data.crops_per_epoch, config.recipe.batch
    fit = rate * seconds * SHARE / config.recipe.epochs
    assert crops % batch == 0
    assert crops == batch or crops <= fit < crops + batch


def _to_the_end(config: RunConfig, data: Path, folder: Path) -> tuple[Path, int]:
    """Best weights of a run that is never given any time, and how often it had to be called again."""
    pauses = 0
    while pauses < 20:
        try:
            return within(config, 0.0, data, folder, folder, ALONE), pauses
        except Paused:
            pauses += 1
    raise AssertionError("it never ends")


def test_the_same_command_goes_on_with_what_was_settled(data: Path, tmp_path: Path, config: RunConfig) -> None:
    best, pauses = _to_the_end(config, data, tmp_path / "run")
    assert best.exists()
    assert pauses == config.recipe.epochs  # a batch each
    settled = RunConfig.model_validate_json((tmp_path / "run" / "config.json").read_text())
    assert settled.data.crops_per_epoch == config.recipe.batch
    assert settled.model_dump(exclude={"data"}) == config.model_dump(exclude={"data"})


def test_a_student_is_taught_in_the_time_as_well(data: Path, tmp_path: Path, config: RunConfig) -> None:
    teacher = train(config, data, tmp_path / "teacher").parent
    taught = config.distill.model_copy(update={"teacher_runs": (str(teacher),)})
    _to_the_end(config.model_copy(update={"distill": taught}), data, tmp_path / "run")
    assert "train_soft_nc" in (tmp_path / "run" / "metrics.csv").read_text()


def test_a_time_that_was_too_short_says_so_and_keeps_what_was_learnt(
    data: Path, tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "quick.toml"
    file.write_text(
        'name = "quick"\nnetwork = "lite-narrow"\nthreads = 1\nworkers = 0\n[data]\nsources = ["glas"]\n'
        "validation = 0.34\ncrop = 64\n[recipe]\nepochs = 2\nbatch = 2\n"
    )
    command = ["within", str(file), "--data", str(data), "--runs", str(tmp_path / "runs"), "--seconds", "0"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        tool.main()
    assert left.value.code == UNFINISHED
    assert "the same command goes on" in capsys.readouterr().out
    assert (tmp_path / "runs" / "quick" / "checkpoint.pt").exists()


def test_several_processes_are_refused_as_each_would_plan_for_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["within", "training/configs/lite.toml", "--seconds", "1"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "under torchrun, training.train" in capsys.readouterr().err


def test_a_speed_is_measured_over_more_steps_than_an_epoch_has(data: Path, config: RunConfig) -> None:
    assert sum(profile(config, data, steps=5).seconds.values()) > 0
