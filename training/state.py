"""What changes while training, and so all that a checkpoint holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.config import RunConfig
from training.network import build

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass
class State:
    """A network in training and its place in the run.

    Attributes:
        network: what learns.
        averaged: its weights' moving mean, if the recipe wants one.
        optimizer: of the network.
        epoch, batch: the next batch to learn from.
        best: lowest validation loss so far.
        idle: epochs since then.
        sums: of every loss term over the epoch's batches so far.
    """

    network: nn.Module
    averaged: AveragedModel | None
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    batch: int = 0
    best: float = float("inf")
    idle: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    @classmethod
    def fresh(cls, config: RunConfig, network: nn.Module | None = None) -> State:
        """A new network, or a given one, before its first batch."""
        recipe = config.recipe
        network = build(config.network) if network is None else network
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averaged = None
        if recipe.ema:
            mean = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
            averaged = AveragedModel(network, multi_avg_fn=mean, use_buffers=True)
        kind = OPTIMIZERS[recipe.optimizer]
        weights = list(network.parameters())
        fused = weights[0].is_cuda or None  # one kernel in place of hundreds
        optimizer = kind(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused)
        return cls(network, averaged, optimizer)

    @property
    def judged(self) -> nn.Module:
        """The network to validate and ship: the averaged weights where there are any."""
        return self.network if self.averaged is None else self.averaged.module

    def save(self, path: Path, config: RunConfig) -> None:
        """Write a checkpoint; a kill leaves the old one whole."""
        content = {
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "place": [self.epoch, self.batch, self.idle],
            "best": self.best,
            "sums": self.sums,
            "config": config.model_dump(mode="json"),
        }
        replace(path, content)

    def load(self, path: Path) -> None:
        """Go back to a checkpoint."""
        content = torch.load(path, weights_only=True, map_location=next(self.network.parameters()).device)
        self.network.load_state_dict(content["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(content["averaged"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.epoch, self.batch, self.idle = content["place"]
        self.best, self.sums = content["best"], content["sums"]

    def keep_if_best(self, loss: float, path: Path, name: str) -> None:
        """Write the judged weights if no epoch had a lower validation loss."""
        self.idle += 1
        if loss < self.best:
            self.best, self.idle = loss, 0
            replace(path, {"network": self.judged.state_dict(), "name": name})


def replace(path: Path, content: Mapping[str, Any]) -> None:
    """Write beside, then rename: a kill leaves the old file whole."""
    beside = path.with_suffix(".new")
    torch.save(dict(content), beside)
    os.replace(beside, path)
