"""By which images a network may be chosen, and what is said of it there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from app.nuclei import load_artifact
from tests.training.layouts import write_lizard
from training import evaluate
from training.config import DataConfig, RunConfig
from training.train import split
from training.validation import validation_images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of 16 drawn images, two a slide, of a source that karyon-lite learnt from."""
    return write_lizard(tmp_path_factory.mktemp("lizard"), [f"glas_{i}" for i in range(16)], (256, 300))


def _run(folder: Path, data: DataConfig | None = None) -> tuple[Path, RunConfig]:
    config = RunConfig(name=folder.name, network="lite-narrow", data=data or DataConfig())
    folder.mkdir()
    (folder / "config.json").write_text(config.model_dump_json())
    return folder, config


def _evaluate(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", "karyon-lite", *map(str, words)])
    evaluate.main()


def test_a_model_is_scored_on_a_runs_validation_images_alone_counts_included(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = _run(tmp_path / "run")
    out = tmp_path / "out"
    _evaluate(monkeypatch, "--run", run, "--root", data, "--out", out)
    (folder,) = out.iterdir()
    written = json.loads((folder / "metrics.json").read_text())
    left_out = sorted(sample.name for sample in split(config, data)[1])
    assert len(left_out) == 2
    assert sorted(row["name"] for row in json.loads((folder / "per_image.json").read_text())) == left_out
    assert folder.name == f"karyon-lite-{load_artifact('karyon-lite').version}-validation-fast"
    assert f"--run {run} " in written["command"]
    assert "r2_common" in written["scores"]


def test_a_card_does_not_tell_of_images_that_networks_were_chosen_by(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = _run(tmp_path / "run")
    with pytest.raises(SystemExit):
        _evaluate(monkeypatch, "--run", run, "--root", data, "--card")
    assert "--card does not go with --run" in capsys.readouterr().err


def test_a_model_that_may_know_a_runs_validation_images_is_refused(data: Path, tmp_path: Path) -> None:
    run, _ = _run(tmp_path / "run", DataConfig(split_seed=1))
    with pytest.raises(ValueError, match="karyon-lite learnt with other split_seed: it may know"):
        validation_images(run, data, load_artifact("karyon-lite"))
