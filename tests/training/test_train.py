"""A run learns, stops and goes on."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_data import write_lizard
from training import train as training
from training.config import RunConfig, load
from training.data import lizard
from training.data.crops import GridCrops
from training.distributed import Team
from training.norms import BEFORE, reestimate
from training.profiling import profile
from training.record import DEVICE, RECORD, record_of
from training.state import State
from training.train import Diverged, learning_rate, main, train


def _config(epochs: int = 2, **recipe: object) -> RunConfig:
    settings = {"epochs": epochs, "batch": 2, "ema": 0.9, "learning_rate": 2e-3, **recipe}
    return RunConfig.model_validate(
        {
            "name": "trial",
            "network": "lite-narrow",
            "threads": 1,
            "workers": 0,
            "data": {"sources": ["glas"], "validation": 0.34, "crop": 64, "crops_per_epoch": 6},
            "recipe": settings,
        }
    )


def test_a_run_leaves_config_metrics_curves_and_weights(data: Path, tmp_path: Path) -> None:
    best = train(_config(), data, tmp_path)
    assert {"config.json", "metrics.csv", "curves.png", "checkpoint.pt", "best.pt"} <= {
        p.name for p in tmp_path.iterdir()
    }
    assert torch.load(best, weights_only=True)["name"] == "lite-narrow"
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]


def test_a_stopped_run_ends_with_the_weights_of_an_undisturbed_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(_config(), data, tmp_path / "whole")
    whole_step, steps = training.step, []

    def stop_after_four(*args: object) -> dict[str, float]:
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return whole_step(*args)  # type: ignore[arg-type]

    often = _config().model_copy(update={"checkpoint_minutes": 1e-9})
    monkeypatch.setattr(training, "step", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        train(often, data, tmp_path / "stopped")
    monkeypatch.setattr(training, "step", whole_step)
    train(often, data, tmp_path / "stopped")
    whole, stopped = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("whole", "stopped"))
    assert all(torch.equal(whole["network"][k], stopped["network"][k]) for k in whole["network"])


def test_a_run_goes_on_from_the_weights_of_an_earlier_one(data: Path, tmp_path: Path) -> None:
    earlier = train(_config(), data, tmp_path / "earlier")
    later = _config(epochs=1).model_copy(update={"begin_from": str(earlier)})
    begun = training.start(later, Team(0, 1, torch.device("cpu")))
    best = torch.load(earlier, weights_only=True)["network"]
    assert all(torch.equal(best[name], value) for name, value in begun.network.state_dict().items())
    other = later.model_copy(update={"network": "efficient-lite"})
    with pytest.raises(ValueError, match=r"weights of lite-narrow, not of efficient-lite$"):
        training.start(other, Team(0, 1, torch.device("cpu")))


def test_a_run_needs_what_it_began_with_only_at_its_beginning(data: Path, tmp_path: Path) -> None:
    earlier = train(_config(epochs=1), data, tmp_path / "earlier")
    later = _config(epochs=1).model_copy(update={"begin_from": str(earlier)})
    train(later, data, tmp_path / "later")
    shutil.rmtree(earlier.parent)
    longer = later.model_copy(update={"recipe": _config(epochs=2).recipe})
    train(longer, data, tmp_path / "later")
    told = record_of(tmp_path / "later")
    assert (told["config"]["recipe"]["epochs"], told["began_with"]["config"]["recipe"]["epochs"]) == (2, 1)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="epoch 0"):
        train(_config(learning_rate=1e30, ema=0.0), data, tmp_path)
    assert "image" in torch.load(tmp_path / "diverged.pt", weights_only=True)


def test_averaged_weights_get_norms_that_fit_them(data: Path, tmp_path: Path) -> None:
    averaged, estimated = (
        torch.load(train(_config(norm_crops=crops), data, tmp_path / str(crops)), weights_only=True)["network"]
        for crops in (0, 4)
    )
    norms = {name for name in averaged if "running" in name}
    assert norms
    for name, tensor in averaged.items():
        assert torch.equal(tensor, estimated[name]) == (name not in norms and "num_batches" not in name), name


def test_a_runs_norms_are_estimated_once_and_its_record_says_so(data: Path, tmp_path: Path) -> None:
    best = train(_config(), data, tmp_path)
    content = torch.load(best, weights_only=True)
    for name, tensor in content["network"].items():
        if name.endswith("running_var"):
            tensor.mul_(25)
    torch.save(content, best)
    (tmp_path / RECORD).write_text(json.dumps(record_of(tmp_path)))
    loss = reestimate(tmp_path, 4, 0, data)
    assert loss["after"]["total"] < loss["before"]["total"]
    kept, new = (torch.load(tmp_path / name, weights_only=True)["network"] for name in (BEFORE, "best.pt"))
    assert all(torch.equal(content["network"][name], kept[name]) for name in kept)
    assert any(not torch.equal(new[name], kept[name]) for name in kept)
    assert record_of(tmp_path)["config"]["recipe"]["norm_crops"] == 4
    with pytest.raises(FileExistsError, match="estimated already"):
        reestimate(tmp_path, 4, 0, data)


def test_norms_that_are_no_better_are_not_taken(data: Path, tmp_path: Path) -> None:
    best = train(_config(norm_crops=4, epochs=1), data, tmp_path)
    before = best.read_bytes()
    loss = reestimate(tmp_path, 4, 0, data)
    assert loss["after"]["total"] >= loss["before"]["total"]
    assert best.read_bytes() == before
    assert not (tmp_path / BEFORE).exists()


def test_a_run_that_came_from_elsewhere_has_ended(data: Path, tmp_path: Path) -> None:
    best = train(_config(), data, tmp_path)
    (tmp_path / RECORD).write_text(json.dumps(record_of(tmp_path)))
    (tmp_path / "checkpoint.pt").unlink()
    before = best.read_bytes()
    assert train(_config(epochs=9), data, tmp_path) == best
    assert best.read_bytes() == before


def test_a_run_remembers_every_device_that_it_learnt_on(data: Path, tmp_path: Path) -> None:
    train(_config(epochs=1), data, tmp_path)
    (tmp_path / DEVICE).write_text("1 x Some GPU\n")
    train(_config(epochs=1), data, tmp_path)
    assert record_of(tmp_path)["device"] == "1 x Some GPU"
    train(_config(epochs=2), data, tmp_path)
    train(_config(epochs=3), data, tmp_path)
    first, *others = record_of(tmp_path)["device"].split(" and ")
    assert first == "1 x Some GPU"
    assert len(others) == 1


def test_data_that_cannot_be_divided_is_refused_before_training(tmp_path: Path) -> None:
    lone = write_lizard(tmp_path / "lizard", ["glas_1", "glas_2"])
    with pytest.raises(ValueError, match="2 images of glas cannot be divided"):
        train(_config(), lone, tmp_path / "run")


def test_eight_patches_can_be_learnt_by_heart(data: Path, tmp_path: Path) -> None:
    config = _config(learning_rate=1e-2, ema=0.0, batch=4)
    config = config.model_copy(update={"network": "lite"})
    grid = GridCrops(lizard.read(data, ["glas"]), 32)
    eight = [e for e in (grid[i] for i in range(len(grid))) if e["np"].any()][:8]
    batch = {name: torch.stack([e[name] for e in eight]) for name in eight[0]}
    torch.manual_seed(0)
    state = State.fresh(config)
    state.network.train()
    first = training.step(state, state.network, batch, config, tmp_path)["total"]
    for _ in range(60):
        last = training.step(state, state.network, batch, config, tmp_path)["total"]
    assert last < first / 4


def test_the_papers_rate_falls_tenfold_at_each_milestone() -> None:
    recipe = RunConfig(name="n", network="lite").recipe
    rates = [learning_rate(recipe, epoch, 0) for epoch in (0, 29, 30, 40)]
    assert rates == pytest.approx([3e-4, 3e-4, 3e-5, 3e-6])


def test_the_trapezoid_rises_stays_and_falls_to_almost_nothing() -> None:
    recipe = _config(10, schedule="trapezoid", learning_rate=1.0, warm_up=0.1, decay=0.4).recipe
    rates = [learning_rate(recipe, epoch, 0.5) for epoch in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125])


@pytest.mark.parametrize("text", ["epoch = 3", "[recipe]\nepoch = 3", "[weights]\nnp_ce = 1"])
def test_a_misspelt_or_incomplete_config_stops_before_anything_starts(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'name = "n"\nnetwork = "lite"\n{text}\n')
    with pytest.raises(ValueError, match=r"epoch|weights"):
        load(path)


def test_what_a_command_sets_takes_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('name = "x"\nnetwork = "lite"\n[recipe]\nepochs = 9\nbatch = 4\n')
    config = load(file, ["recipe.epochs=2", 'data.sources=["glas"]', "name='y'"])
    assert (config.name, config.recipe.epochs, config.recipe.batch, config.data.sources) == ("y", 2, 4, ("glas",))


@pytest.mark.parametrize("change", ["recipe.epoch=2", "recipe.optimizer=adam", "recipe.epochs", "name.x=1"])
def test_a_change_that_makes_no_config_is_named(change: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('name = "x"\nnetwork = "lite"\n[recipe]\nepochs = 9\n')
    with pytest.raises(ValueError, match=change.split("=", maxsplit=1)[0]):
        load(file, [change])


def test_a_student_has_one_teacher(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('name = "x"\nnetwork = "lite"\n[distill]\nteacher = "a"\nteacher_runs = ["runs/b"]\n')
    with pytest.raises(ValueError, match="one teacher"):
        load(file)


def test_a_run_has_one_beginning(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('name = "n"\nnetwork = "efficient-lite"\nbegin_from = "a.pt"\nencoder_weights = "b.pt"\n')
    with pytest.raises(ValueError, match="one beginning"):
        load(path)


@pytest.mark.parametrize("path", sorted(Path("training/configs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    assert load(path).name == path.stem


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    config = _config().model_copy(update={"deterministic": True, "checkpoint_minutes": 1e-9})
    path = tmp_path / "run.toml"
    path.write_text(
        'name = "killed"\nnetwork = "lite-narrow"\nthreads = 1\nworkers = 0\ndeterministic = true\n'
        "checkpoint_minutes = 1e-9\n"
        '[data]\nsources = ["glas"]\nvalidation = 0.34\ncrop = 64\ncrops_per_epoch = 6\n'
        "[recipe]\nepochs = 2\nbatch = 2\nema = 0.9\nlearning_rate = 2e-3\n"
    )
    train(config, data, tmp_path / "whole")
    command = [sys.executable, "-m", "training.train", str(path), "--data", str(data), "--runs", str(tmp_path)]
    rng = np.random.default_rng(0)
    for _ in range(10):
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(timeout=float(rng.uniform(2.0, 6.0)))
        run.kill()
        run.wait()
    subprocess.run(command, check=True, capture_output=True)
    whole, killed = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("whole", "killed"))
    assert all(torch.equal(whole["network"][k], killed["network"][k]) for k in whole["network"])
    assert all(torch.equal(whole["averaged"][k], killed["averaged"][k]) for k in whole["averaged"])


def test_a_profile_names_where_the_time_of_a_step_goes(data: Path) -> None:
    clock = profile(_config(), data, steps=1, warm=0)
    assert list(clock.seconds) == ["waiting for data", "forward", "loss", "backward", "optimizer and averaging"]
    assert clock.table(1).count("\n") == 6


@pytest.mark.parametrize(
    ("content", "options", "refusal"),
    [
        ('network = "lite-narrow"\n[distill]\nteacher = "pair"', [], "names a teacher"),
        ('network = "lite-narrow"\n[distill]\nteacher_runs = ["runs/a"]', [], "names a teacher"),
        ('network = "lite-narrow"\nbegin_from = "best.pt"', ["--encoder-weights", "file"], "begins with: best.pt"),
    ],
)
def test_a_command_that_would_train_otherwise_than_the_config_says_is_refused(
    content: str,
    options: list[str],
    refusal: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run.toml").write_text('name = "run"\n' + content)
    monkeypatch.setattr("sys.argv", ["training.train", str(tmp_path / "run.toml"), *options])
    with pytest.raises(SystemExit):
        main()
    assert refusal in capsys.readouterr().err
