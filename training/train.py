"""Train one network as its TOML file says; stop it whenever you like, the same command goes on.

    python -m training.train training/configs/lite.toml
    torchrun --nproc-per-node 4 -m training.train training/configs/seresnext50.toml

The run folder (`runs/<name>/`) holds config.json, metrics.csv and curves.png per epoch, checkpoint.pt to resume
from, and best.pt, the weights of the lowest validation loss.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from app.nuclei.engine import cpu_limit
from training import curves, losses
from training.augment import Jitter
from training.config import RecipeConfig, RunConfig, load
from training.data import lizard
from training.data.crops import Example, GridCrops, RandomCrops
from training.data.sample import Sample, split_by_group
from training.deployed import TrainedMember
from training.distributed import Team, team
from training.encoder_weights import load_encoder
from training.loading import batches_of, loader, moved
from training.network import Logits, build, compile_blocks, estimate_norms, forward
from training.record import RECORD, remember_beginning, remember_device
from training.state import State


class Diverged(RuntimeError):
    """The loss is no longer a number; the batch that did it was saved."""


class Paused(Exception):
    """The time that a run was given is over; its checkpoint holds all it learnt."""


def train(
    config: RunConfig,
    data: Path,
    folder: Path,
    together: Team | None = None,
    crops: RandomCrops | None = None,
    until: float | None = None,
) -> Path:
    """Train to the end, or go on from the run folder's checkpoint; a run that came from elsewhere has ended.

    Args:
        config: the run.
        data: root of the Lizard data set.
        folder: run folder, made if it is not there.
        together: the processes that train as one; this one alone if None.
        crops: what to learn from instead of the run's own crops.
        until: on the monotonic clock, when to stop between two batches; None: at the end.

    Returns:
        Path of the best weights.

    Raises:
        Paused: the time was over first.
        Diverged: a loss was not finite; `diverged.pt` in the run folder holds the batch.
    """
    if (folder / RECORD).exists():
        return folder / "best.pt"
    together = together or Team(0, 1, torch.device("cpu"))
    prepare(config, folder, together)
    training, validation = split(config, data)
    crops = crops or random_crops(config, training)
    judge = judge_of(config, validation)
    state = resume(config, folder, together)
    learner = together.wrap(state.network)
    while state.epoch < config.recipe.epochs and not _tired(state, config.recipe):
        began = time.monotonic()
        if together.leads:
            remember_device(folder, together.device, together.size)
        learnt = train_epoch(state, learner, crops, config, folder, together, until)
        if together.leads and state.averaged is not None and config.recipe.norm_crops:
            seen = crops_for_norms(crops, config.recipe.norm_crops, config, together.device)
            estimate_norms(state.judged, seen, config.recipe.bf16)
        judged = validate(state.judged, judge, config, together.device) if together.leads else {"total": 0.0}
        loss = together.agree(judged["total"])
        if together.leads:
            state.keep_if_best(loss, folder / "best.pt", config.network)
            report(folder, state.epoch, time.monotonic() - began, learnt, judged)
        state.idle, state.best = int(together.agree(state.idle)), together.agree(state.best)
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, {}
        if together.leads:
            state.save(folder / "checkpoint.pt", config)
    return folder / "best.pt"


def prepare(config: RunConfig, folder: Path, together: Team) -> None:
    """Threads, determinism and the run folder."""
    torch.set_num_threads(config.threads or max(1, cpu_limit() // together.size))
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic  # crops have one size: the search pays off
    torch.set_float32_matmul_precision("highest" if config.deterministic else "high")
    if together.leads:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(config.model_dump_json(indent=1))


def resume(config: RunConfig, folder: Path, together: Team) -> State:
    """Where the run folder's checkpoint stands, or the start; what a run began with is needed only there."""
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = start(config.model_copy(update={"begin_from": "", "encoder_weights": ""}), together)
        state.load(checkpoint)
        return state
    state = start(config, together)
    if config.begin_from and together.leads:
        remember_beginning(folder, config.begin_from)
    return state


def start(config: RunConfig, together: Team) -> State:
    """A network before its first batch: from random weights, an encoder that was learnt elsewhere, or an earlier run.

    Raises:
        ValueError: the earlier run trained another network, or divided its images otherwise.
    """
    torch.manual_seed(config.seed)
    network = build(config.network, config.dropout)
    if config.begin_from:
        earlier = TrainedMember.read(Path(config.begin_from))
        if earlier.encoder != config.network:
            raise ValueError(f"{config.begin_from} holds weights of {earlier.encoder}, not of {config.network}")
        check_beginning(config, Path(config.begin_from))
        network.load_state_dict(earlier.network.state_dict())
    if config.encoder_weights:
        load_encoder(network, Path(config.encoder_weights))
    state = State.fresh(config, together.synchronise_norms(network).to(together.device))
    if config.recipe.compile:
        compile_blocks(state.network)
    return state


def check_beginning(config: RunConfig, weights: Path) -> None:
    """`check_division` for weights whose run's config lies beside them; what nothing is known of passes."""
    earlier = weights.with_name("config.json")
    if earlier.exists():
        check_division(config, json.loads(earlier.read_text()), str(weights))


def check_division(config: RunConfig, other: Mapping[str, Any], weights: str) -> None:
    """Refuse weights that may know the images that a run is judged by.

    Args:
        config: of the run.
        other: config of the run that made the weights.
        weights: their name, for the message.

    Raises:
        ValueError: that run divided its images otherwise.
    """
    theirs, own = other["data"], config.model_dump(mode="json")["data"]
    if differ := [key for key in ("sources", "validation", "split_seed") if theirs[key] != own[key]]:
        raise ValueError(
            f"{weights} learnt with other {', '.join(differ)}: it may know images that this run is judged by"
        )


def split(config: RunConfig, data: Path) -> tuple[list[Sample], list[Sample]]:
    """The run's training and validation images, divided by slide where Lizard names it, else by image.

    Raises:
        ValueError: one side would be empty.
    """
    samples = lizard.read(data, config.data.sources)
    training, validation = split_by_group(samples, config.data.validation, config.data.split_seed)
    if not training or not validation:
        share = config.data.validation
        raise ValueError(
            f"{len(samples)} images of {', '.join(config.data.sources)} cannot be divided by slide at {share}"
        )
    return training, validation


def random_crops(config: RunConfig, samples: list[Sample]) -> RandomCrops:
    """The crops that a run learns from."""
    data, jitter = config.data, Jitter(**config.jitter.model_dump())
    return RandomCrops(
        samples, data.crop, data.crops_per_epoch, jitter, data.rare_share, config.seed, by_area=config.balance.by_area
    )


def crops_for_norms(crops: RandomCrops, count: int, config: RunConfig, device: torch.device) -> Iterator[Tensor]:
    """Images of the first so many crops of an epoch, in whole batches as they were learnt from."""
    first = Subset(crops, range(max(count, config.recipe.batch) // config.recipe.batch * config.recipe.batch))
    for batch in loader(first, config.recipe.batch, config, config.workers):
        yield batch["image"].to(device, non_blocking=True)


def judge_of(config: RunConfig, samples: list[Sample]) -> DataLoader[Example]:
    """The batches that every epoch is validated on."""
    return loader(judged_crops(config, samples), config.recipe.batch, config, workers=0)


def judged_crops(config: RunConfig, samples: list[Sample]) -> Dataset[Example]:
    """The crops that every epoch is validated on."""
    grid, most = GridCrops(samples, config.data.crop), config.data.judged
    if not most or most >= len(grid):
        return grid
    return Subset(grid, [i * len(grid) // most for i in range(most)])


def train_epoch(
    state: State,
    learner: nn.Module,
    crops: RandomCrops,
    config: RunConfig,
    folder: Path,
    together: Team,
    until: float | None = None,
) -> dict[str, float]:
    """The rest of one epoch; mean of every loss term over it."""
    steps = config.data.crops_per_epoch // config.recipe.batch
    learner.train()
    saved = time.monotonic()
    batches = batches_of(crops, state, config, together)
    bar = tqdm(batches, f"epoch {state.epoch}", steps, initial=state.batch, mininterval=10, disable=not together.leads)
    for batch in bar:
        rate = learning_rate(config.recipe, state.epoch, state.batch / steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        # What dropout draws depends on the place in the run alone, so that resuming is exact.
        torch.manual_seed(hash((config.seed, together.rank, state.epoch, state.batch)) % 2**63)
        parts = step(state, learner, moved(batch, together.device), config, folder)
        state.batch += 1
        for name, value in parts.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        bar.set_postfix(loss=f"{state.sums['total'] / state.batch:.3f}", lr=f"{rate:.1e}", refresh=False)
        over = until is not None and bool(together.agree(time.monotonic() >= until))
        if together.leads and (over or time.monotonic() - saved > config.checkpoint_minutes * 60):
            state.save(folder / "checkpoint.pt", config)
            saved = time.monotonic()
        if over:
            raise Paused(f"{config.name} stopped after batch {state.batch} of {steps} of epoch {state.epoch}")
    return {name: round(value / state.batch, 5) for name, value in state.sums.items()}


def step(state: State, learner: nn.Module, batch: Example, config: RunConfig, folder: Path) -> dict[str, float]:
    """Learn from one batch; the value of every term and their total."""
    logits = forward(learner, batch["image"], config.recipe.bf16)
    parts, loss = loss_of(logits, batch, config)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    # Once, and only here: a GPU that is asked for a number has nothing to do until it is told the next step.
    values = dict(zip((*parts, "total"), torch.stack([*parts.values(), loss]).tolist(), strict=True))
    if not math.isfinite(values["total"]):
        torch.save(batch, folder / "diverged.pt")
        raise Diverged(f"epoch {state.epoch}, batch {state.batch}: {values}; the batch is in {folder / 'diverged.pt'}")
    if config.recipe.clip:
        nn.utils.clip_grad_norm_(state.network.parameters(), config.recipe.clip)
    state.optimizer.step()
    if state.averaged is not None:
        state.averaged.update_parameters(state.network)
    return values


def loss_of(logits: Logits, batch: Example, config: RunConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Every loss term by name, and their weighted sum: from the labels, and from a teacher where there is one."""
    balance = config.balance
    if "soft_np" not in batch:
        parts = losses.terms(logits, batch, balance.gamma, balance.class_weights)
        return parts, losses.total(parts, config.weights)
    parts = losses.soft_terms(logits, batch)
    loss = losses.total(parts, losses.SOFT_WEIGHTS)
    labelled = batch["labelled"] > 0
    if config.distill.hard and labelled.any():
        mine = {name: tensor[labelled] for name, tensor in batch.items()}
        hard = losses.terms(Logits(*(m[labelled] for m in logits)), mine, balance.gamma, balance.class_weights)
        loss = loss + config.distill.hard * losses.total(hard, config.weights)
        parts |= hard
    return parts, loss


@torch.no_grad()
def validate(
    network: nn.Module, crops: DataLoader[Example], config: RunConfig, device: torch.device
) -> dict[str, float]:
    """Mean of every loss term, their total, and the Dice of nucleus pixels, over unvaried crops."""
    network.eval()
    sums: dict[str, float] = {}
    overlap = area = 0.0
    for batch in (moved(b, device) for b in crops):
        logits = forward(network, batch["image"], config.recipe.bf16)
        parts = losses.terms(logits, batch)
        parts["total"] = losses.total(parts, config.weights)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.item() * len(batch["image"])
        found = logits.np.float().softmax(1)[:, 1] >= 0.5
        overlap += 2 * float((found & (batch["np"] == 1)).sum())
        area += float(found.sum() + batch["np"].sum())
    count = len(crops.dataset)  # type: ignore[arg-type]
    return {name: round(v / count, 5) for name, v in sums.items()} | {"dice": round(overlap / max(area, 1), 5)}


def learning_rate(recipe: RecipeConfig, epoch: int, share: float) -> float:
    """Learning rate `share` (0..1) into an epoch; a pure function of progress, so that resuming is exact."""
    if recipe.schedule == "milestones":
        return float(recipe.learning_rate * 0.1 ** sum(epoch >= m for m in recipe.milestones))
    progress = (epoch + share) / recipe.epochs
    rise = progress / recipe.warm_up if recipe.warm_up else 1.0
    fall = (1 - progress) / recipe.decay if recipe.decay else 1.0
    return recipe.learning_rate * max(min(rise, fall, 1.0), 1e-3)


def report(folder: Path, epoch: int, seconds: float, learnt: Mapping[str, float], judged: Mapping[str, float]) -> None:
    """One more row in metrics.csv and on the screen, and the curves drawn anew.

    A row that a killed run wrote for this epoch already is replaced.
    """
    row: dict[str, float] = {"epoch": epoch, "minutes": round(seconds / 60, 2)}
    row |= {f"train_{k}": v for k, v in learnt.items()} | {f"validation_{k}": v for k, v in judged.items()}
    path = folder / "metrics.csv"
    rows: list[Mapping[str, object]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [earlier for earlier in csv.DictReader(file) if int(earlier["epoch"]) < epoch]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows([*rows, row])
    curves.plot(path, folder / "curves.png")
    print(json.dumps(row), flush=True)


def _tired(state: State, recipe: RecipeConfig) -> bool:
    return bool(recipe.patience) and state.idle >= recipe.patience


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file of the run")
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders lie")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in place of what CONFIG says")
    parser.add_argument("--encoder-weights", type=Path, help="encoder learnt elsewhere (torchvision, timm, Cadene)")
    arguments = parser.parse_args()
    config = load(arguments.config, arguments.set)
    if config.distill.teacher or config.distill.teacher_runs:
        parser.error(f"{arguments.config} names a teacher: python -m training.distill trains with one")
    if arguments.encoder_weights:
        if config.begin_from:
            parser.error(f"{arguments.config} says what the run begins with: {config.begin_from}")
        config = config.model_copy(update={"encoder_weights": str(arguments.encoder_weights)})
    with team() as together:
        best = train(config, arguments.data, arguments.runs / config.name, together)
        if together.leads:
            print(f"best weights: {best}")


if __name__ == "__main__":
    main()
