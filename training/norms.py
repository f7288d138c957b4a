"""Which mean and variance do the batch norms of averaged weights need? Those that come to them, not averaged ones.

    python -m training.norms runs/seresnext50-brief --crops 96

gives the norms of a run's best weights the statistics of so many of its training crops (Wu and Johnson, 2021, "precise"
batch norm) if that lowers the validation loss, which is printed before and after; what was there stays as
best.before-norms.pt. Training does so after every epoch where a recipe has `norm_crops`: statistics averaged beside the
weights lag behind them, the more so the faster the weights still move.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import shutil
from pathlib import Path

import torch

from training.config import RunConfig
from training.data import lizard
from training.deployed import TrainedMember
from training.network import estimate_norms
from training.record import RECORD
from training.state import replace
from training.train import crops_for_norms, judge_of, random_crops, split, validate

BEFORE = "best.before-norms.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of training.train")
    parser.add_argument("--crops", type=int, default=128)
    parser.add_argument("--judged", type=int, default=0, help="most validation crops looked at; by default the run's")
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    arguments = parser.parse_args()
    print(json.dumps(reestimate(arguments.run, arguments.crops, arguments.judged, arguments.data), indent=1))


def reestimate(run: Path, crops: int, judged: int, data: Path) -> dict[str, dict[str, float]]:
    """Re-estimate the norms of a run's best weights, unless that is no better; the validation loss of both.

    Args:
        run: folder of training.train.
        crops: training crops to look at.
        judged: most validation crops looked at; 0: as the run does.
        data: root of the Lizard data set.

    Raises:
        FileExistsError: it was done before.
    """
    if (run / BEFORE).exists() and not filecmp.cmp(run / BEFORE, run / "best.pt", shallow=False):
        raise FileExistsError(f"{run / BEFORE} is there: this run's norms were estimated already")
    config = RunConfig.model_validate_json((run / "config.json").read_text())
    config = config.model_copy(update={"data": config.data.model_copy(update={"judged": judged or config.data.judged})})
    training, validation = split(config, data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = TrainedMember.read(run / "best.pt").network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    judge = judge_of(config, validation)
    scores = {"before": validate(network, judge, config, device)}
    varied = random_crops(config, training)
    varied.epoch = config.recipe.epochs - 1
    estimate_norms(network, crops_for_norms(varied, crops, config, device), config.recipe.bf16)
    scores["after"] = validate(network, judge, config, device)
    if scores["after"]["total"] < scores["before"]["total"]:
        shutil.copyfile(run / "best.pt", run / BEFORE)
        replace(run / "best.pt", {"network": network.state_dict(), "name": config.network})
        _remember(run, crops)
    return scores


def _remember(run: Path, crops: int) -> None:
    """Say so in the run's config, and in its record if it came from elsewhere."""
    for path in (run / "config.json", run / RECORD):
        if path.exists():
            content = json.loads(path.read_text())
            content.get("config", content)["recipe"]["norm_crops"] = crops
            path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
