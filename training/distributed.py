"""How do several processes train one network? Started by torchrun, one process a device; alone without it.

torchrun --nproc-per-node 4 -m training.train training/configs/seresnext50.toml
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Team:
    """The processes that train together, seen from one of them.

    Attributes:
        rank: of this process, 0 leads.
        size: number of processes.
        device: where this process calculates.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """A network whose gradients are averaged over the team; itself where there is no team."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network)

    def synchronise_norms(self, network: nn.Module) -> nn.Module:
        """Batch norms that see the batches of the whole team (the paper trains 16 patches over 4 GPUs)."""
        if self.size == 1:
            return network
        if self.device.type == "cuda":
            return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(network))  # type: ignore[no-untyped-call]
        return synchronised(network)

    def agree(self, value: float) -> float:
        """The leader's value, on every process."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return float(shared)


def team_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def team() -> Iterator[Team]:
    """Join the processes that torchrun started, and leave them at the end."""
    rank, size = int(os.environ.get("RANK", "0")), team_size()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size > 1:
        distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Team(rank, size, device)
        if size > 1:
            distributed.barrier()  # who leaves first must not pull the connection from under the others
    finally:
        if size > 1:
            distributed.destroy_process_group()


class _SumOfTeam(torch.autograd.Function):
    """Sum over all processes; so is its gradient."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _SumOfTeam.forward(_, gradient)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the whole team's batch, on any device (torch's own wants a GPU)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = torch.tensor([x.numel() / x.shape[1]], device=x.device)
        mine = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), count])
        sums = _SumOfTeam.apply(mine)  # type: ignore[no-untyped-call]
        total, squares, count = sums[: x.shape[1]], sums[x.shape[1] : -1], sums[-1]
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shifted = wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return cast(Tensor, shifted.to(x.dtype))

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronised(network: nn.Module) -> nn.Module:
    """Every batch norm of a network turned, in place, into a synchronised one with the same weights and names."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d
    return network
