"""Which runs make which table of the paper, and what did the paper measure?

A row is an ensemble of runs seen from some views; runs that several rows or tables share are trained once. The paper's
figures are mPQ+ and R² on its own Lizard split (PAPER.md 7); None where this project knows no figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.nuclei.types import Profile

HELD_OUT = "consep"
SOURCES = ("glas", "dpath", "pannuke", "consep")


@dataclass(frozen=True)
class Variant:
    """One training run: a network and what differs from the paper's recipe.

    Attributes:
        name: of its run folder.
        network: as `training.network.NETWORKS` has it.
        held_out: source that it is scored on and never sees.
        overrides: parts of the run's TOML.
    """

    name: str
    network: str
    held_out: str = HELD_OUT
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """What it learns from."""
        return tuple(s for s in SOURCES if s != self.held_out)


@dataclass(frozen=True)
class Row:
    """One line of a table: members averaged over the views of a profile, and the paper's mPQ+ and R²."""

    title: str
    members: tuple[Variant, ...]
    profile: Profile
    paper: tuple[float, float] | None = None


FIFTY, HUNDRED = Variant("seresnext50", "seresnext50"), Variant("seresnext101", "seresnext101")
BOTH = (FIFTY, HUNDRED)
HOVERNET = Variant("hovernet", "hovernet")
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def _both(suffix: str, **differences: Any) -> tuple[Variant, ...]:
    return tuple(Variant(f"{v.name}-{suffix}", v.network, **differences) for v in BOTH)


def _without(source: str) -> tuple[Variant, ...]:
    return BOTH if source == HELD_OUT else _both(f"without-{source}", held_out=source)


TABLES: Mapping[str, tuple[str, tuple[Row, ...]]] = {
    "2": (
        "Against HoVer-Net",
        (
            Row("HoVer-Net (ResNet50, three decoders)", (HOVERNET,), "fast", (0.4893, 0.7081)),
            Row("SEResNeXt50, one view", (FIFTY,), "fast", (0.5087, 0.7529)),
            Row("SEResNeXt101, one view", (HUNDRED,), "fast", (0.5286, 0.7700)),
            Row("both, three views", BOTH, "accurate", (0.5599, 0.8437)),
        ),
    ),
    "6": (
        "Encoders, three views",
        (
            Row("ResNet50", (Variant("resnet50", "resnet50"),), "accurate"),
            Row("ResNet101", (Variant("resnet101", "resnet101"),), "accurate"),
            Row("SEResNeXt50", (FIFTY,), "accurate", (0.5488, 0.8455)),
            Row("SEResNeXt101", (HUNDRED,), "accurate", (0.5482, 0.8009)),
        ),
    ),
    "7": (
        "Augmentation, both members, three views",
        (
            Row("none", _both("plain", overrides={"jitter": {**STILL, "blur": 0.0, "symmetry": False}}), "accurate"),
            Row("symmetries", _both("turned", overrides={"jitter": {**STILL, "blur": 0.0}}), "accurate"),
            Row("symmetries, colour", _both("coloured", overrides={"jitter": {"blur": 0.0}}), "accurate"),
            Row("symmetries, colour, blur (the recipe)", BOTH, "accurate", (0.5599, 0.8437)),
        ),
    ),
    "8": (
        "Dropout, both members, three views",
        (
            Row("without", _both("no-dropout", overrides={"dropout": 0.0}), "accurate", (0.5504, 0.8394)),
            Row("with", BOTH, "accurate", (0.5599, 0.8437)),
        ),
    ),
    "10": (
        "Folds by source, both members, three views",
        tuple(Row(f"scored on {source}", _without(source), "accurate") for source in SOURCES),
    ),
    "11": (
        "Levels of the ensemble",
        (
            Row("SEResNeXt50, one view", (FIFTY,), "fast", (0.5087, 0.7529)),
            Row("SEResNeXt50, three views", (FIFTY,), "accurate", (0.5488, 0.8455)),
            Row("SEResNeXt101, one view", (HUNDRED,), "fast", (0.5286, 0.7700)),
            Row("SEResNeXt101, three views", (HUNDRED,), "accurate", (0.5482, 0.8009)),
            Row("both, one view", BOTH, "fast", (0.5352, 0.8185)),
            Row("both, three views", BOTH, "accurate", (0.5599, 0.8437)),
        ),
    ),
}
