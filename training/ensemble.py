"""Train the paper's ensemble and its baseline in runs of some minutes; call it again until it is done.

    python -m training.ensemble --minutes 10       # status 75: there is more to do; 0: all are trained
    python -m training.ensemble --brief            # by the recipe for minutes on a GPU in place of the paper's
    python -m training.ensemble --reduced          # the same path with narrow networks: a minute on a CPU

SEResNeXt50, SEResNeXt101 and HoVer-Net are trained one after the other by configs that differ in the network alone, so
each gets the same crops, epochs and recipe: the paper's, or a brief one. Every run writes a checkpoint when its time is
over, and the next call goes on with the very next batch: stopping changes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.ablate import reduced
from training.config import RunConfig, load
from training.data import lizard
from training.distributed import Team, team
from training.train import Paused, train

CONFIGS = Path(__file__).parent / "configs"
NETWORKS = ("seresnext50", "seresnext101", "hovernet")
UNFINISHED = 75
"""Exit status: the time was over; EX_TEMPFAIL of sysexits.h."""


def configs(small: bool = False, brief: bool = False) -> list[RunConfig]:
    """The runs, in order, by the paper's recipe or the brief one; or the same with narrow networks and little data."""
    whole = [load(CONFIGS / f"{name}{'-brief' if brief else ''}.toml") for name in NETWORKS]
    return [_reduced(config) for config in whole] if small else whole


def _reduced(config: RunConfig) -> RunConfig:
    scale = reduced()
    content = config.model_dump() | {"name": config.name + scale.suffix, "network": config.network + scale.suffix}
    for part, values in scale.overrides:
        content[part] = content[part] | values
    # bfloat16: a CPU without instructions for it takes ten times as long. Compiled: longer than these runs take.
    content["recipe"] |= {"bf16": False, "compile": False}
    return RunConfig.model_validate(content | {"workers": 0})


def train_all(
    runs: Sequence[RunConfig], data: Path, folder: Path, together: Team, until: float | None = None
) -> list[Path]:
    """Train what is not trained yet; paths of the best weights.

    Args:
        runs: in order; a run that has ended is left as it is.
        data: root of the Lizard data set.
        folder: of the run folders.
        together: the processes that train as one.
        until: on the monotonic clock; None: to the end.

    Raises:
        Paused: the time was over first; everything learnt is kept.
    """
    return [train(config, data, folder / config.name, together, until=until) for config in runs]


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="stop after so long, with a checkpoint; by default at the end")
    parser.add_argument("--brief", action="store_true", help="the recipe for minutes in place of the paper's")
    parser.add_argument("--reduced", action="store_true", help="narrow networks, little data: the path, not the scores")
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders lie")
    arguments = parser.parse_args()
    until = None if arguments.minutes is None else began + 60 * arguments.minutes
    with team() as together:
        try:
            runs = configs(arguments.reduced, arguments.brief)
            best = train_all(runs, arguments.data, arguments.runs, together, until)
        except Paused as pause:
            if together.leads:
                print(f"{pause}; the same command goes on", flush=True)
            sys.exit(UNFINISHED)
        if together.leads:
            print("\n".join(f"best weights: {path}" for path in best))


if __name__ == "__main__":
    main()
