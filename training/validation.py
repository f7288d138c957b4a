"""Which images may a network be chosen by? Those that its run, and every run of a model, left out of training."""

from __future__ import annotations

from pathlib import Path

from app.nuclei.artifact import Artifact
from training.config import RunConfig
from training.data.sample import Sample
from training.record import runs_of
from training.train import check_division, split


def validation_images(run: Path, data: Path, artifact: Artifact) -> list[Sample]:
    """A run's validation images, for a look at a model.

    Args:
        run: folder of training.train.
        data: root of the Lizard data set.
        artifact: the model that will be judged by them.

    Raises:
        ValueError: the model divided its images otherwise.
    """
    config = RunConfig.model_validate_json((run / "config.json").read_text())
    check_unknown(artifact, config)
    return split(config, data)[1]


def check_unknown(artifact: Artifact, config: RunConfig) -> None:
    """Refuse a model that may know the validation images of a run.

    Raises:
        ValueError: one of its own runs divided its images otherwise.
    """
    for record in runs_of(artifact.manifest.training):
        if "config" in record:
            check_division(config, record["config"], artifact.name)
