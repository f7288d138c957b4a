"""Train for as long as a machine is there, without knowing how fast it is.

    python -m training.within training/configs/efficient-large.toml --seconds 300     # status 75: the time was short
    python -m training.within training/configs/efficient-large.toml --measure         # how fast, and no more

Some steps are timed first; then `crops_per_epoch` becomes what fits into the time that is left, so that the learning
rate has fallen to its end when that is over. The run folder keeps the config so settled, and the same command goes on
with that; `training.train` and `training.distill` would go on with what the file says.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from training.config import RunConfig, load
from training.data.crops import RandomCrops
from training.distill import add_places, taught_crops
from training.distributed import Team, team, team_size
from training.ensemble import UNFINISHED
from training.profiling import profile
from training.train import Paused, train

STEPS = 16
"""Timed, after those that a GPU's libraries take to find their way."""
SHARE = 0.8
"""Of the time, for learning; the rest is for validation, loaders that start, and steps that take longer. With 0.9 a run
of six epochs on an H200 was stopped in the middle of the last."""


def crops_a_second(config: RunConfig, data: Path, crops: RandomCrops | None = None) -> float:
    """How many crops the machine learns from in a second, by a run's recipe."""
    return STEPS * config.recipe.batch / sum(profile(config, data, STEPS, crops=crops).seconds.values())


def fitted(config: RunConfig, rate: float, seconds: float) -> RunConfig:
    """The run with as many crops as fit, in whole batches and the same number in every epoch; at least one batch.

    Args:
        config: the run.
        rate: crops a second.
        seconds: that are left.
    """
    batch = config.recipe.batch
    batches = max(int(rate * seconds * SHARE / config.recipe.epochs / batch), 1)
    return config.model_copy(update={"data": config.data.model_copy(update={"crops_per_epoch": batches * batch})})


def within(config: RunConfig, seconds: float, data: Path, folder: Path, store: Path, together: Team) -> Path:
    """Train a run, or the student of one that names a teacher, in so many seconds; path of the best weights.

    Args:
        config: the run; where its folder holds one already, that is gone on with.
        seconds: from now on, all told.
        data: root of the Lizard data set.
        folder: of the run.
        store: where a teacher lies that was exported.
        together: this process alone; speed is measured for one.

    Raises:
        Paused: the time was over first; everything learnt is kept.
        ValueError: see `training.distill.taught_crops`.
    """
    until = time.monotonic() + seconds
    settled = folder / "config.json"
    begun = settled.exists()
    if begun:
        config = RunConfig.model_validate_json(settled.read_text())
    taught = config.distill.teacher or config.distill.teacher_runs
    crops = taught_crops(config, data, folder, store, together) if taught else None
    if not begun:
        rate = crops_a_second(config, data, crops)
        config = fitted(config, rate, until - time.monotonic())
        print(f"{rate:.0f} crops a second: {config.recipe.epochs} epochs of {config.data.crops_per_epoch}", flush=True)
    if crops is not None:
        crops.length = config.data.crops_per_epoch
    return train(config, data, folder, together, crops, until)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file of the run; its crops_per_epoch is not asked")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--seconds", type=float, help="for all of it")
    how.add_argument("--measure", action="store_true", help="only print crops a second, without a teacher")
    add_places(parser)
    arguments = parser.parse_args()
    if team_size() > 1:
        parser.error(
            "it times one process and plans for that one; under torchrun, training.train takes a number of crops"
        )
    config = load(arguments.config, arguments.set)
    if arguments.measure:
        print(f"{crops_a_second(config, arguments.data):.0f} crops a second")
        return
    with team() as together:
        try:
            folder = arguments.runs / config.name
            print(within(config, arguments.seconds, arguments.data, folder, arguments.store, together))
        except Paused as pause:
            print(f"{pause}; the same command goes on", flush=True)
            sys.exit(UNFINISHED)


if __name__ == "__main__":
    main()
