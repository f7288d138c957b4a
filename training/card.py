"""What should someone know before they trust a model? The table of its scores, and its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.nuclei.artifact import Artifact
from app.nuclei.taxonomy import NAMES
from training import sensitivity
from training.data import lizard
from training.failures import REACH_UM
from training.record import history, runs_of
from training.scores import RADIUS, RESAMPLES

ROWS = {
    "mpq_plus": "mPQ+",
    "bpq": "bPQ",
    "dice": "Dice (nucleus pixels)",
    "detection_f1": f"Detection F1 (all nuclei, {RADIUS} px)",
    "r2": "R² (mean over six classes)",
    "r2_common": "R² (epithelial, lymphocyte, plasma, connective)",
}
PER_CLASS = ("count_ratio_per_class", "pq_per_class", "detection_f1_per_class", "r2_per_class")
STUDIES = {"sensitivity": "## What spoils it", "int8": "## What int8 costs"}


def table(result: Mapping[str, Any]) -> str:
    """Markdown of all scores with their 95 % intervals, and the command that made them."""
    scores = result["scores"]
    lines = ["| score | value | 95 % interval |", "|---|---|---|"]
    lines += [f"| {title} | {scores[key]['value']:.3f} | {_range(scores[key])} |" for key, title in ROWS.items()]
    lines += ["", "| class | nuclei in truth | found by true | PQ | detection F1 | R² |", "|---|---|---|---|---|---|"]
    for name in NAMES:
        cells = [_cell(scores[key][name]) for key in PER_CLASS]
        lines.append(f"| {name} | {result['truth_counts'][name]} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{result['images']} images, {result['nuclei']} nuclei of {result['data']}, profile `{result['profile']}`; "
        f"intervals from {RESAMPLES} bootstrap resamples of the images. mPQ+, Dice and F1 are of all images' nuclei "
        f"together, bPQ is the mean of the images', R² is over their {4 * result['images']} corner patches at most "
        f"(256 px, counted in the central 224). Made by `{result['command']}`.",
    ]
    return "\n".join(lines)


def update(artifact: Artifact, result: Mapping[str, Any], plot: Path) -> None:
    """Write the scores into the model's manifest, and its card and reliability plot anew."""
    path = artifact.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    facts = {name: value for name, value in result.items() if name != "detail"}
    manifest["scores"] = {**facts, "scores": _rounded(result["scores"])}
    shutil.copyfile(plot, artifact.folder / plot.name)
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    written = artifact.folder / "MODEL_CARD.md"
    kept = {name: section(written.read_text(), title) for name, title in STUDIES.items()}
    written.write_text(text(manifest, result, kept))


def section(card_text: str, title: str) -> str:
    """A section of a card with its title, without the blank lines around it; empty if it has none."""
    _, there, behind = card_text.partition(f"{title}\n")
    return f"{title}\n{behind.partition(f'{chr(10)}## ')[0]}".strip() if there else ""


def text(manifest: Mapping[str, Any], result: Mapping[str, Any], kept: Mapping[str, str]) -> str:
    """The model card.

    Args:
        manifest: of the model.
        result: of its evaluation.
        kept: sections of its earlier card, for studies that this evaluation is without.
    """
    training, members = manifest["training"], manifest["members"]
    networks = "; ".join(f"{m['encoder']}, {m['parameters']:,} parameters" for m in members)
    recipes = "\n".join(f"| recipe | {recipe(run)} |" for run in runs_of(training))
    return f"""# {manifest["name"]} {manifest["version"]}

Finds and classifies nuclei in H&E tissue at {manifest["mpp"]} um per pixel. **Research use only. Not for diagnostic
procedures.**

| | |
|---|---|
| networks | {networks} |
| trained on | {training["data"]}; split {training["split"]} |
{recipes}
| compute | {compute(training)} |
| licence of the weights | {manifest["licence"]}: non-commercial, with attribution, share alike |
| patch sizes, margin | {", ".join(map(str, manifest["patch_sizes"]))}; {manifest["margin"]} |
| code | revision {training["revision"]} |

## Scores on images of a source that it did not learn from

{table(result)}

{about(result)}

{_detail(result["detail"], kept)}

## What it does not know

- It saw colon tissue only, stained with H&E and scanned at about {manifest["mpp"]} um per pixel, from three sources.
  Other organs, stains and scanners are outside what it learnt.
- {off_counts(result["scores"])}
- Neutrophils and eosinophils are rare in the training images: read their counts with the intervals above in mind.
- Nuclei smaller than {manifest["postprocess"]["smallest_object"]} pixels are dropped.
- Tumour burden is not reported: {manifest["tumour_burden_reason"]}.
- {_calibration(manifest["calibration"])}
"""


def _calibration(calibration: Mapping[str, Any]) -> str:
    if "ece_after" not in calibration:
        return "Class probabilities are not calibrated."
    return (
        f"Class probabilities have temperature {calibration['temperature']}, fitted on {calibration['nuclei']:,} "
        f"validation nuclei: expected calibration error {calibration['ece_before']:.3f} before, "
        f"{calibration['ece_after']:.3f} after, on the very nuclei that it was fitted on. On other tissue or stains "
        "that calibration is lost: promise nothing."
    )


def about(result: Mapping[str, Any]) -> str:
    """What a reader should know of the images, and how much hangs on one of them."""
    said = lizard.ABOUT.get(str(result["data"]).removeprefix("lizard/"), "")
    if without := result["detail"].get("without_one"):
        low, high = without[0], without[-1]
        said += (
            f"\n\nR² of the common classes is {low['value']:.2f} without {low['name']} alone, and {high['value']:.2f} "
            f"without {high['name']}."
        )
    return said.strip()


def off_counts(scores: Mapping[str, Any]) -> str:
    """Which classes are counted too often or too seldom, where the interval says so."""
    ratios = scores["count_ratio_per_class"]
    off = [
        f"{name} {r['value']:.2f} times" for name, r in ratios.items() if r["value"] and not r["low"] <= 1 <= r["high"]
    ]
    if not off:
        return "Counts of no class are off beyond chance on the images above; on other tissue they may be."
    return f"Counts are off beyond chance on the images above: {', '.join(off)} as many as there are."


def recipe(run: Mapping[str, Any]) -> str:
    """How one network was trained."""
    learnt, data = run["config"]["recipe"], run["config"]["data"]
    return (
        f"{learnt['epochs']} epochs of {data['crops_per_epoch']} crops of {data['crop']} px, batch {learnt['batch']}, "
        f"{learnt['optimizer']} at {learnt['learning_rate']}, {beginning(run)}{_teacher(run['config'])}; "
        f"the epoch of lowest validation loss{_norms(learnt)}{_averaged(run)}"
    )


def _norms(learnt: Mapping[str, Any]) -> str:
    if not (learnt.get("ema") and learnt.get("norm_crops")):
        return ""
    return f", its averaged weights with batch norms estimated on {learnt['norm_crops']} crops"


def _averaged(run: Mapping[str, Any]) -> str:
    if not (others := run.get("averaged_with")):
        return ""
    recipes = " and of ".join(f"{other['config']['name']} ({recipe(other)})" for other in others)
    return f"; then the mean of its weights and of {recipes}, norms estimated on {run['averaged_crops']} crops"


def beginning(training: Mapping[str, Any]) -> str:
    """What a run began with, and what that had begun with."""
    config, earlier = training["config"], training.get("began_with")
    if earlier:
        name, epochs = earlier["config"]["name"], earlier["config"]["recipe"]["epochs"]
        learnt = f"{epochs} epochs, {beginning(earlier)}{_teacher(earlier['config'])}"
        return f"from the weights of {name} ({learnt}{_averaged(earlier)})"
    if not config.get("encoder_weights"):
        return "from random weights"
    return f"encoder from the ImageNet weights of {config['encoder_weights']}, the rest from random ones"


def _teacher(config: Mapping[str, Any]) -> str:
    if not (teachers := teachers_of(config)):
        return ""
    labels = "the labels and by " if config["distill"]["hard"] else ""
    return f", taught by {labels}the maps of {' and '.join(teachers)}"


def teachers_of(config: Mapping[str, Any]) -> list[str]:
    """Names of the models or runs that a run learnt from."""
    distilled = config.get("distill", {})
    runs = [Path(run).name for run in distilled.get("teacher_runs", [])]
    return [distilled["teacher"]] if distilled.get("teacher") else runs


def compute(training: Mapping[str, Any]) -> str:
    """Hours of training, those of the runs that it began with among them, and the cost of a view."""
    runs = runs_of(training)
    past = history(*runs)
    minutes = sum(float(run.get("minutes") or 0) for run in past)
    costs = [gflop_of(run) for run in runs if "gflop" in run]
    hours = f"{minutes / 60:.1f} hours of training" if minutes else "training time not recorded"
    devices = dict.fromkeys(run.get("device") for run in past if run.get("minutes"))
    if devices and None not in devices:
        hours += f" on {' and '.join(map(str, devices))}"
    if minutes and any(teachers_of(run["config"]) for run in past):
        hours += ", its teacher's not among them"
    return hours + (f"; {sum(costs):.2f} GFLOP a 256x256 view" if costs else "")


def gflop_of(run: Mapping[str, Any]) -> float:
    """What a view costs; manifests of the first models have it in a list."""
    cost = run["gflop"]
    return float(sum(cost) if isinstance(cost, list) else cost)


def _detail(detail: Mapping[str, Any], kept: Mapping[str, str]) -> str:
    worst = ", ".join(f"{w['name']} (bPQ {w['bpq']:.3f}, {w['nuclei']} nuclei)" for w in detail["worst"])
    parts = [
        "## Where the errors lie",
        _fates(detail["by_size"], "area, um²"),
        _fates(detail["by_crowding"], f"other nuclei within {REACH_UM:.0f} um"),
        "Found: met by a predicted nucleus at IoU > 0.5. Rightly named: of those found. "
        f"The worst images are {worst}; the command above draws them beside their truth.",
        "## How honest its confidence is",
        _confidence(detail),
        "![Confidence against accuracy](reliability.png)",
    ]
    if "views" in detail:
        profile = detail["views"]["profile"]
        parts += [
            f"## What the profile `{profile}` changes",
            _gaps(detail["views"], f"`{profile}`", "the profile above"),
        ]
    if "sensitivity" in detail:
        parts += [STUDIES["sensitivity"], sensitivity.table(detail["sensitivity"])]
        parts += ["The same images, spoilt one way at a time. Made by `python -m training.sensitivity`."]
    else:
        parts.append(kept["sensitivity"])
    if "int8" in detail:
        parts += [STUDIES["int8"], _gaps(detail["int8"], "in int8", "the same in float32")]
        parts += ["The same images, seen by the networks as they calculate in int8 (`KARYON_PRECISION=int8`)."]
    else:
        parts.append(kept["int8"])
    return "\n\n".join(filter(None, parts))


def _confidence(detail: Mapping[str, Any]) -> str:
    low, high = detail["calibration_interval"]
    unmet = detail["unmet"]
    lines = [
        f"The class of a nucleus that meets a true one has an expected calibration error of "
        f"{detail['calibration_error']:.3f} ({low:.3f} to {high:.3f}) on these images. It hides what classes do:",
        "",
        "| class given | nuclei that meet a true one | mean confidence | rightly named | calibration error |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['class']} | {r['nuclei']} | {r['confidence']:.2f} | {r['right']:.2f} | {r['error']:.3f} |"
        for r in detail["calibration_by_class"]
    ]
    if unmet["nuclei"] and unmet["confidence_of_met"]:
        lines += [
            "",
            f"It says which class, not whether there is a nucleus: {unmet['nuclei']} of the {unmet['of']} nuclei found "
            f"meet none at IoU > 0.5, with a mean confidence of {unmet['confidence']:.2f} where the others have "
            f"{unmet['confidence_of_met']:.2f}.",
        ]
    return "\n".join(lines)


def _gaps(found: Mapping[str, Any], title: str, other: str) -> str:
    lines = [f"| score | {title} | less {other} | 95 % of that |", "|---|---|---|---|"]
    for name, gap in found["gaps"].items():
        value = found["scores"][name]["value"]
        lines.append(f"| {ROWS[name]} | {value:.3f} | {gap['value']:+.3f} | {gap['low']:+.3f} to {gap['high']:+.3f} |")
    return "\n".join(lines)


def _fates(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    lines = [f"| {title} | nuclei in truth | found | rightly named |", "|---|---|---|---|"]
    lines += [
        f"| {r['low']:.0f} to {r['high']:.0f} | {r['nuclei']} | {r['found']:.0%} | {r['named']:.0%} |" for r in rows
    ]
    return "\n".join(lines)


def _cell(score: Mapping[str, float]) -> str:
    return f"{score['value']:.3f} ({_range(score)})"


def _range(score: Mapping[str, float]) -> str:
    return f"{score['low']:.3f} to {score['high']:.3f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value
