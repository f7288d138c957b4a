"""Several processes train as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.test_data import write_lizard
from training.distributed import Team, synchronised

CONFIG = """
name = "pair"
network = "lite-narrow"
threads = 1
workers = 0
[data]
sources = ["glas"]
validation = 0.34
crop = 64
crops_per_epoch = 8
[recipe]
epochs = 2
batch = 4
learning_rate = 1e-3
ema = 0.9
"""
NORM = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel
from training.distributed import SynchronisedBatchNorm2d, team
torch.manual_seed(0)
x = torch.randn(4, 3, 5, 5) + torch.arange(4)[:, None, None, None]
with team() as t:
    norm = SynchronisedBatchNorm2d(3)
    mine = x[t.rank::2].clone().requires_grad_()
    learner = DistributedDataParallel(norm)
    out = learner(mine)
    (out ** 3).mean().backward()
    torch.save({"out": out.detach(), "grad": norm.weight.grad, "x": mine.grad, "mean": norm.running_mean,
                "var": norm.running_var}, f"{sys.argv[1]}/{t.rank}.pt")
"""


def _torchrun(*arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_normalise_as_one_batch(tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(NORM)
    _torchrun(str(tmp_path / "norm.py"), str(tmp_path))
    torch.manual_seed(0)
    x = (torch.randn(4, 3, 5, 5) + torch.arange(4)[:, None, None, None]).requires_grad_()
    whole = nn.BatchNorm2d(3)
    out = whole(x)
    (out**3).mean().backward()
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank, half in enumerate(halves):
        torch.testing.assert_close(half["out"], out[rank::2].detach())
        torch.testing.assert_close(half["mean"], whole.running_mean)
        torch.testing.assert_close(half["var"], whole.running_var)
        torch.testing.assert_close(half["x"] / 2, x.grad[rank::2])  # each half's mean is over half as many
    torch.testing.assert_close(halves[0]["grad"], whole.weight.grad)


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    data = write_lizard(tmp_path / "lizard", [f"glas_{i}" for i in range(6)])
    (tmp_path / "pair.toml").write_text(CONFIG)
    _torchrun("-m", "training.train", str(tmp_path / "pair.toml"), "--data", str(data), "--runs", str(tmp_path))
    run = tmp_path / "pair"
    assert {"best.pt", "metrics.csv", "checkpoint.pt"} <= {p.name for p in run.iterdir()}
    assert torch.load(run / "checkpoint.pt", weights_only=True)["place"][:2] == [2, 0]


def test_a_norm_keeps_weights_and_names_when_it_is_synchronised() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {n: t.clone() for n, t in network.state_dict().items()}
    after = synchronised(network).eval().state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_one_process_is_a_team_of_itself() -> None:
    alone, network = Team(0, 1, torch.device("cpu")), nn.BatchNorm2d(2)
    assert alone.leads
    assert alone.wrap(network) is network
    assert alone.synchronise_norms(network) is network
    assert alone.agree(3.5) == pytest.approx(3.5)
