"""Make a table of the paper anew: train what is missing, score every row, print it beside the paper's figures.

    python -m training.ablate 11              # the whole thing: days on a GPU
    python -m training.ablate 11 --reduced    # the same path with narrow networks and few patches: minutes

Runs lie in runs/ablate/ and are shared between tables; a stopped command goes on where it was. The paper's figures are
on its own split of all of Lizard, these on a source held out, so compare differences, not values.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.nuclei import Segmenter, hover
from app.nuclei.artifact import Artifact, GoldenFile, Manifest
from app.nuclei.taxonomy import NAMES
from training.config import RunConfig
from training.data import lizard
from training.data.sample import Sample
from training.deployed import Deployed, Together, TorchEngine, TrainedMember
from training.distributed import Team, team
from training.evaluate import evaluate
from training.export import MARGIN, PATCH_SIZES
from training.scores import ImageScore, compare, summarise
from training.tables import TABLES, Row, Variant
from training.train import train


@dataclass(frozen=True)
class Scale:
    """How much of everything: the whole thing, or just enough to walk the path.

    Attributes:
        suffix: of the networks' names.
        overrides: parts of every run's TOML.
        images: held-out images scored; all if None.
    """

    suffix: str = ""
    overrides: tuple[tuple[str, dict[str, Any]], ...] = ()
    images: int | None = None


WHOLE = Scale()
REDUCED_NOTE = "narrow networks, little training: the path, not the scores"


def reduced(epochs: int = 2, crops: int = 64, images: int | None = 2) -> Scale:
    """Narrow networks, small crops, few of them."""
    falls = [round(epochs * share) for share in (0.6, 0.85)]
    data = {"crop": 64, "crops_per_epoch": crops, "judged": 64}
    recipe = {"epochs": epochs, "batch": 8, "learning_rate": 1e-3, "milestones": falls}
    return Scale("-narrow", (("data", data), ("recipe", recipe)), images)


def run_config(variant: Variant, scale: Scale) -> RunConfig:
    """The paper's recipe, with what the variant and the scale change."""
    content: dict[str, Any] = {"name": variant.name + scale.suffix, "network": variant.network + scale.suffix}
    content["data"] = {"sources": variant.sources}
    for part, values in [*scale.overrides, *variant.overrides.items()]:
        content[part] = {**content.get(part, {}), **values} if isinstance(values, dict) else values
    return RunConfig.model_validate(content)


def member(variant: Variant, scale: Scale, data: Path, runs: Path, together: Team) -> TrainedMember:
    """A variant's trained network; trained, or trained on, if its run has not ended."""
    config = run_config(variant, scale)
    return TrainedMember.read(train(config, data, runs / config.name, together))


def score(row: Row, members: Sequence[TrainedMember], samples: Sequence[Sample]) -> list[ImageScore]:
    """One row's scores per held-out image, by the Segmenter that serves."""
    engine = Together([TorchEngine(Deployed(m.network)) for m in members])
    return evaluate(Segmenter(_artifact(), engine), samples, row.profile)


def make(table: str, scale: Scale, data: Path, runs: Path, together: Team) -> str:
    """Train, score and lay out one table, as Markdown; also written to the runs' folder, with scores per row."""
    title, rows = TABLES[table]
    scored: list[list[ImageScore]] = []
    for row in rows:
        members = [member(v, scale, data, runs, together) for v in row.members]
        samples = lizard.read(data, [row.members[0].held_out])[: scale.images]
        scored.append(score(row, members, samples))
    text = layout(f"Table {table}. {title}", rows, scored, scale)
    if together.leads:
        (runs / f"table-{table}{scale.suffix}.md").write_text(text + "\n")
        summaries = {row.title: summarise(found) for row, found in zip(rows, scored, strict=True)}
        (runs / f"table-{table}{scale.suffix}.json").write_text(json.dumps(summaries, indent=1) + "\n")
    return text


def layout(title: str, rows: Sequence[Row], scored: Sequence[Sequence[ImageScore]], scale: Scale) -> str:
    """Markdown in the paper's form: mPQ+ and R² of each row, the paper's beside them, and the gap to the last row."""
    lines = [f"**{title}**" + (f" ({REDUCED_NOTE})" if scale.suffix else ""), ""]
    lines += ["| | mPQ+ | R² | paper mPQ+ | paper R² | last row minus this, mPQ+ (95 %) |", "|---|---|---|---|---|---|"]
    for row, found in zip(rows, scored, strict=True):
        scores = summarise(found)
        paper = [f"{v:.4f}" for v in row.paper] if row.paper else ["not known", "not known"]
        cells = [f"{scores[name]['value']:.4f}" for name in ("mpq_plus", "r2")]
        lines.append("| " + " | ".join([row.title, *cells, *paper, _gap(scored[-1], found)]) + " |")
    return "\n".join(lines)


def _gap(last: Sequence[ImageScore], found: Sequence[ImageScore]) -> str:
    if last is found or [i.name for i in last] != [i.name for i in found]:
        return ""
    gap = compare(last, found)["mpq_plus"]
    return f"{gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"


def _artifact() -> Artifact:
    """What the Segmenter needs to know of networks that are in no store."""
    return Artifact(
        Path(),
        Manifest(
            name="ablation",
            version="0",
            members=(),
            classes=NAMES,
            mpp=lizard.MPP,
            patch_sizes=PATCH_SIZES,
            margin=MARGIN,
            postprocess=hover.NATIVE,
            profiles={"fast": ("original",), "accurate": ("original", "left-right", "up-down")},
            temperature=1.0,
            qc={},
            licence=lizard.LICENCE,
            training={},
            tumour_burden_reason="a trial",
            scores={},
            golden=GoldenFile("", "", 0.0),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES), help="number in the paper")
    parser.add_argument("--reduced", action="store_true", help="narrow networks, few patches")
    parser.add_argument("--epochs", type=int, default=2, help="of a reduced run")
    parser.add_argument("--crops", type=int, default=64, help="an epoch of a reduced run")
    parser.add_argument("--all-images", action="store_true", help="score a reduced run on every held-out image")
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablate"), help="where run folders lie")
    arguments = parser.parse_args()
    with team() as together:
        images = None if arguments.all_images else 2
        scale = reduced(arguments.epochs, arguments.crops, images) if arguments.reduced else WHOLE
        table = make(arguments.table, scale, arguments.data, arguments.runs, together)
        if together.leads:
            print(table)


if __name__ == "__main__":
    main()
