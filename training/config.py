"""What makes one training run: a TOML file, checked whole before anything starts."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.losses import PAPER_WEIGHTS
from training.network import NC_CHANNELS, NETWORKS


class Section(BaseModel):
    """Base of every part: unknown keys stop the start, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    sources: tuple[str, ...] = Field(("glas", "dpath", "pannuke"), description="collections to learn from")
    validation: float = Field(0.12, gt=0, lt=1, description="share held back, by slide where it is known")
    split_seed: int = Field(39, description="39 gives each class about the same share on both sides of Lizard")
    crop: int = Field(256, ge=64, multiple_of=16, description="side in pixels")
    crops_per_epoch: int = Field(870, ge=1)
    judged: int = Field(0, ge=0, description="most validation crops looked at per epoch, spread evenly; 0: all")
    rare_share: float = Field(0.0, ge=0, le=1, description="share of crops laid around a class drawn first")


class JitterConfig(Section):
    brightness: float = 0.2
    contrast: float = 0.25
    saturation: float = 0.2
    hue: float = 0.05
    blur: float = 0.5
    stain: float = 0.0
    sharpen: float = 0.0
    jpeg: float = 0.0
    scale: float = 0.0
    symmetry: bool = True


class RecipeConfig(Section):
    epochs: int = Field(50, ge=1)
    batch: int = Field(16, ge=1)
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["milestones", "trapezoid"] = Field("milestones", description="x0.1 at each, or up, level, down")
    milestones: tuple[int, ...] = (30, 40)
    warm_up: float = Field(0.02, ge=0, le=1, description="trapezoid: share of the steps that rise")
    decay: float = Field(0.35, ge=0, le=1, description="trapezoid: share of the steps that fall to zero")
    clip: float = Field(0.0, ge=0, description="largest norm of the gradient, 0 is off")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, 0 is off")
    norm_crops: int = Field(0, ge=0, description="crops that the norms of averaged weights are estimated on, 0: none")
    bf16: bool = False
    compile: bool = Field(False, description="the blocks as torch compiles them: faster on a GPU, slow to start")
    patience: int = Field(0, ge=0, description="epochs without a lower validation loss before it stops, 0 is off")


class BalanceConfig(Section):
    gamma: float = Field(0.0, ge=0, description="of the focal loss on classes, 0 is off")
    by_area: float = Field(0.0, ge=0, le=1, description="what small nuclei weigh: 0 pixels alike, 1 nuclei alike")
    class_weights: tuple[float, ...] = Field((), description="seven, background first; none: all 1")


class DistillConfig(Section):
    teacher: str = Field("", description="NAME or NAME@VERSION in the model store; none: no distillation")
    teacher_runs: tuple[str, ...] = Field((), description="run folders in its place, averaged; by torch, on a GPU too")
    profile: Literal["fast", "accurate"] = "accurate"
    images: str = Field("", description="folder of further images without labels, at the network's scale")
    hard: float = Field(0.5, ge=0, description="weight of the labels' loss beside the teacher's")


class RunConfig(Section):
    """One run."""

    name: str
    network: str
    dropout: float | None = Field(None, ge=0, lt=1, description="the network's own if not given")
    seed: int = 1
    threads: int = Field(0, ge=0, description="0: as many as the machine lends")
    workers: int = Field(1, ge=0, description="processes that load data")
    deterministic: bool = Field(False, description="only algorithms that add in the same order every time")
    encoder_weights: str = Field("", description="file of an encoder learnt elsewhere")
    begin_from: str = Field("", description="best.pt of an earlier run of the same network, all of it")
    checkpoint_minutes: float = Field(5.0, gt=0)
    data: DataConfig = DataConfig()
    jitter: JitterConfig = JitterConfig()
    recipe: RecipeConfig = RecipeConfig()
    balance: BalanceConfig = BalanceConfig()
    distill: DistillConfig = DistillConfig()
    weights: dict[str, float] = Field(default_factory=lambda: dict(PAPER_WEIGHTS), description="of the loss terms")


def load(path: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Read and check a run's TOML file.

    Args:
        path: of the file.
        changes: `KEY=VALUE`, in TOML, set in place of what the file says: `recipe.epochs=5`.

    Raises:
        ValueError: an unknown key, network or loss term, a value out of range, two beginnings, two teachers, or a
            change that is no TOML; the message names it.
    """
    content = tomllib.loads(path.read_text())
    for change in changes:
        content = _changed(content, change)
    config = RunConfig.model_validate(content)
    if config.network not in NETWORKS:
        raise ValueError(f"{path}: no network called {config.network!r}; there are {', '.join(sorted(NETWORKS))}")
    if config.begin_from and config.encoder_weights:
        raise ValueError(f"{path}: a run has one beginning, begin_from or encoder_weights")
    if config.distill.teacher and config.distill.teacher_runs:
        raise ValueError(f"{path}: a student has one teacher, distill.teacher or distill.teacher_runs")
    if set(config.weights) != set(PAPER_WEIGHTS):
        raise ValueError(f"{path}: weights must name exactly {', '.join(PAPER_WEIGHTS)}")
    if len(config.balance.class_weights) not in (0, NC_CHANNELS):
        raise ValueError(f"{path}: class_weights are {NC_CHANNELS}, background first, or none")
    return config


def _changed(content: dict[str, Any], change: str) -> dict[str, Any]:
    try:
        return _merged(content, tomllib.loads(change))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{change}: not KEY=VALUE in TOML, where text is in quotes ({error})") from error
    except TypeError as error:
        raise ValueError(f"{change}: part of its key is a value in the file") from error


def _merged(content: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of both, key by key; what is no table is the change's.

    Raises:
        TypeError: a table of the change is a value in the content.
    """
    both = {key: _merged(content.get(key, {}), value) for key, value in change.items() if isinstance(value, Mapping)}
    return content | dict(change) | both
