"""How do examples come to the device that learns? In one order, whoever loads them, wherever a run was stopped."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from app.nuclei.engine import cpu_limit
from training.config import RunConfig
from training.data.crops import Example, RandomCrops
from training.distributed import Team
from training.state import State


def batches_of(crops: RandomCrops, state: State, config: RunConfig, together: Team) -> Iterator[Example]:
    """This process' share of every batch that is left of the epoch."""
    crops.epoch, whole = state.epoch, config.recipe.batch
    share = whole // together.size
    first = range(state.batch * whole + together.rank * share, len(crops) - whole + 1 + together.rank * share, whole)
    mine = Subset(crops, [index for begin in first for index in range(begin, begin + share)])
    yield from loader(mine, share, config, config.workers)


def loader(examples: Dataset[Example], batch: int, config: RunConfig, workers: int) -> DataLoader[Example]:
    """Batches of examples; on the way to a GPU from memory that it can copy by itself."""
    # A generator of its own: a loader draws a seed when it starts, and the global one must not notice a restart.
    seeds = torch.Generator().manual_seed(config.seed)
    workers = min(workers, cpu_limit())
    return DataLoader(examples, batch, num_workers=workers, generator=seeds, pin_memory=torch.cuda.is_available())


def moved(batch: Example, device: torch.device) -> Example:
    """A batch on a device; copied while the device works, if its memory allows."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
