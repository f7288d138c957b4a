"""The ensemble is trained in runs of some minutes, and its data travel in parts."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_data import write_lizard
from training import ensemble
from training.config import RunConfig
from training.data import lizard
from training.data.layout import WrongLayout
from training.data.pack import pack, parts_in, unpack
from training.distributed import Team
from training.train import Paused

ALONE = Team(0, 1, torch.device("cpu"))


def _tiny(config: RunConfig) -> RunConfig:
    """Two batches on three images."""
    content = config.model_dump()
    content["data"] |= {"sources": ["glas"], "validation": 0.34, "crops_per_epoch": 4}
    content["recipe"] |= {"epochs": 1, "batch": 2}
    return RunConfig.model_validate(content | {"threads": 1})


@pytest.mark.parametrize(("brief", "suffix", "epochs"), [(False, "", 50), (True, "-brief", 4)])
def test_the_three_networks_are_trained_by_one_recipe(brief: bool, suffix: str, epochs: int) -> None:
    runs = [run.model_dump() for run in ensemble.configs(brief=brief)]
    assert [run.pop("network") + suffix for run in runs] == [run.pop("name") for run in runs]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0]["recipe"]["epochs"] == epochs


def test_runs_that_are_stopped_after_every_batch_end_with_the_weights_of_undisturbed_ones(
    data: Path, tmp_path: Path
) -> None:
    runs = [_tiny(run) for run in ensemble.configs(small=True)[::2]]
    whole = ensemble.train_all(runs, data, tmp_path / "whole", ALONE)
    pauses = 0
    while pauses < 20:
        try:
            stopped = ensemble.train_all(runs, data, tmp_path / "stopped", ALONE, until=time.monotonic())
            break
        except Paused:
            pauses += 1
    assert pauses == 2 * len(runs)
    for one, other in zip(whole, stopped, strict=True):
        mine, theirs = (torch.load(path, weights_only=True)["network"] for path in (one, other))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_whose_time_is_over_says_that_there_is_more_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{source}_{i}" for source in ("glas", "dpath", "pannuke") for i in range(18)]
    data = write_lizard(tmp_path / "lizard", names)
    words = ["ensemble", "--reduced", "--minutes", "0", "--data", str(data), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        ensemble.main()
    assert end.value.code == ensemble.UNFINISHED
    assert "stopped after batch 1 of 8 of epoch 0; the same command goes on" in capsys.readouterr().out
    assert (tmp_path / "runs" / "seresnext50-narrow" / "checkpoint.pt").exists()


@pytest.mark.parametrize("most", [1, 20_000, 10**9])
def test_a_data_set_that_travelled_in_parts_is_the_same_data_set(data: Path, tmp_path: Path, most: int) -> None:
    parts = pack(data, tmp_path / "parts", ["glas"], most)
    sizes = [part.stat().st_size for part in parts]
    assert len(sizes) == {1: 13, 10**9: 1}.get(most, len(sizes))
    assert unpack(tmp_path / "parts", tmp_path / "there") == len(parts_in(tmp_path / "parts"))
    for one, other in zip(lizard.read(data), lizard.read(tmp_path / "there"), strict=True):
        assert (one.name, one.group, one.types.tolist()) == (other.name, other.group, other.types.tolist())
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.instance_map, other.instance_map)


def test_parts_that_are_not_there_are_missed(tmp_path: Path) -> None:
    with pytest.raises(WrongLayout, match="holds no lizard"):
        unpack(tmp_path, tmp_path / "there")
