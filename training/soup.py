"""Do several runs from one beginning make a better network together? The mean of their weights costs what one does.

    python -m training.soup runs/a runs/b --into runs/both

writes a run folder: the mean of the runs' best weights (a "model soup", Wortsman et al., 2022), its batch norms
estimated on crops of the first run, and record.json with what is to be said of all of them. `training.tune` then judges
it and `training.export` takes it as any other. It helps only where the weights lie in one basin: runs that began with
the same trained weights, or one that began with the other's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.config import RunConfig
from training.data import lizard
from training.deployed import TrainedMember
from training.network import build, estimate_norms
from training.record import RECORD, record_of
from training.state import replace
from training.train import check_beginning, crops_for_norms, random_crops, split

CROPS = 256


def soup(runs: Sequence[Path], into: Path, crops: int, data: Path) -> Path:
    """Make the run folder of the mean of several runs.

    Args:
        runs: folders of training.train, two or more.
        into: folder to make; its name is that of the new run.
        crops: training crops of the first run that the norms are estimated on.
        data: root of the Lizard data set.

    Raises:
        ValueError: fewer than two runs, other networks, a run that is a mean itself, or one that divided its images
            otherwise than the first.
        FileExistsError: the folder is there already.
    """
    if len(runs) < 2:
        raise ValueError("a mean needs two runs or more")
    if into.exists():
        raise FileExistsError(f"{into} is there already")
    first = RunConfig.model_validate_json((runs[0] / "config.json").read_text())
    for run in runs[1:]:
        check_beginning(first, run / "best.pt")
    records = [record_of(run) for run in runs]
    if means := [run.name for run, record in zip(runs, records, strict=True) if record.get("averaged_with")]:
        raise ValueError(f"{' and '.join(means)}: a mean already; name the runs that it was made of")
    network = mean_of([TrainedMember.read(run / "best.pt") for run in runs])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    varied = random_crops(first, split(first, data)[0])
    estimate_norms(network, crops_for_norms(varied, crops, first, device), first.recipe.bf16)
    into.mkdir(parents=True)
    config = first.model_copy(update={"name": into.name})
    record = records[0] | {"averaged_with": records[1:], "averaged_crops": crops}
    (into / "config.json").write_text(config.model_dump_json(indent=1))
    (into / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    replace(into / "best.pt", {"network": network.state_dict(), "name": config.network})
    return into


def mean_of(members: Sequence[TrainedMember]) -> nn.Module:
    """A network of the mean weights; the statistics of its norms are means too, and fit it badly.

    Raises:
        ValueError: the members are not the same network.
    """
    names = sorted({member.encoder for member in members})
    if len(names) > 1:
        raise ValueError(f"weights of {' and '.join(names)} have no mean")
    states = [member.network.state_dict() for member in members]
    network = build(names[0])
    network.load_state_dict({key: _mean([state[key] for state in states]) for key in states[0]})
    return network


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Of float tensors; counters of batches are the first's."""
    return torch.stack(list(tensors)).mean(0) if tensors[0].is_floating_point() else tensors[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="run folders of training.train")
    parser.add_argument("--into", type=Path, required=True, help="folder to make")
    parser.add_argument("--crops", type=int, default=CROPS, help="training crops for the norms")
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    arguments = parser.parse_args()
    print(soup(arguments.run, arguments.into, arguments.crops, arguments.data))


if __name__ == "__main__":
    main()
