"""Where does the time of a training step go?

    python -m training.profiling training/configs/lite.toml --steps 40

prints each part's share, as Markdown: waiting for data, forward, loss, backward, and the optimizer with averaging.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch

from training.config import RunConfig, load
from training.data import lizard
from training.data.crops import RandomCrops
from training.distributed import Team
from training.loading import batches_of, moved
from training.network import forward
from training.train import loss_of, prepare, random_crops, split, start


@dataclass
class Clock:
    """Seconds per part, over all steps."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def table(self, steps: int) -> str:
        """Milliseconds per step and share of each part."""
        whole = sum(self.seconds.values())
        rows = [f"| {n} | {1000 * s / steps:.1f} | {s / whole:.1%} |" for n, s in self.seconds.items()]
        return "\n".join(["| part | ms a step | share |", "|---|---|---|", *rows])


def profile(config: RunConfig, data: Path, steps: int, warm: int = 3, crops: RandomCrops | None = None) -> Clock:
    """Time the parts of some steps of a run, the first few left out; nothing of it is kept.

    Args:
        config: the run.
        data: root of the Lizard data set.
        steps: how many are timed.
        warm: how many go before them.
        crops: what to learn from instead of the run's own crops.
    """
    alone, clock = Team(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu")), Clock()
    with tempfile.TemporaryDirectory() as scratch:
        prepare(config, Path(scratch), alone)
        state = start(config, alone)
        timed = copy(crops or random_crops(config, split(config, data)[0]))
        timed.length = (steps + warm) * config.recipe.batch  # an epoch may have fewer
        batches = batches_of(timed, state, config, alone)
        state.network.train()
        for index in range(steps + warm):
            if index == warm:
                clock.seconds.clear()
            with clock.part("waiting for data"):
                batch = moved(next(batches), alone.device)
            with clock.part("forward"):
                logits = forward(state.network, batch["image"], config.recipe.bf16)
            with clock.part("loss"):
                _, loss = loss_of(logits, batch, config)
            with clock.part("backward"):
                state.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            with clock.part("optimizer and averaging"):
                state.optimizer.step()
                if state.averaged is not None:
                    state.averaged.update_parameters(state.network)
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in place of what CONFIG says")
    parser.add_argument("--data", type=Path, default=lizard.default_root())
    arguments = parser.parse_args()
    print(profile(load(arguments.config, arguments.set), arguments.data, arguments.steps).table(arguments.steps))


if __name__ == "__main__":
    main()
