"""How good is a model on images it has not seen? By the very Segmenter that serves.

    python -m training.evaluate karyon-lite --data lizard --source consep

writes metrics.json, scores per image, a reliability plot and overlays of the best image and the three worst to
out/evaluate/; with --card also the model's scores into its manifest, and its MODEL_CARD.md anew with studies of what
spoils it and of what more views and int8 do; with --against NAME@VERSION it says which differences from that model are
more than chance.

    python -m training.evaluate my-model --run runs/lite

scores the validation images of a run instead, counts included: by those networks are chosen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from tqdm import tqdm

from app.nuclei import Segmenter, load_artifact
from app.nuclei.artifact import Artifact, default_store
from app.nuclei.engine import proven
from app.nuclei.types import Engine, Profile, Segmentation
from training import card, failures, reliability, sensitivity
from training.data import lizard
from training.data.sample import Sample
from training.pictures import outlines
from training.scores import ImageScore, Maps, compare, score_image, summarise, without_one
from training.validation import validation_images

PATCH = 256
WORST = 3
INT8: Literal["int8"] = "int8"


def evaluate(segmenter: Segmenter, samples: Sequence[Sample], profile: Profile) -> list[ImageScore]:
    """Score every image; whole images for segmentation, their corner patches on their own for counts."""
    return [score for score, _ in evaluated(segmenter, samples, profile)]


def evaluated(
    segmenter: Segmenter, samples: Sequence[Sample], profile: Profile
) -> list[tuple[ImageScore, Segmentation]]:
    """Every image's score, and what was found on the whole of it."""
    return [evaluate_image(segmenter, sample, profile) for sample in tqdm(samples, desc="evaluate")]


def evaluate_image(segmenter: Segmenter, sample: Sample, profile: Profile) -> tuple[ImageScore, Segmentation]:
    """Segment and score one image."""
    found = segmenter.segment(sample.image, mpp=sample.mpp, profile=profile)
    truth = (sample.instance_map, sample.type_map)
    pairs: list[tuple[Maps, Maps]] = []
    for corner in corners(*sample.instance_map.shape):
        patch = segmenter.segment(np.ascontiguousarray(sample.image[corner]), mpp=sample.mpp, profile=profile)
        pairs.append(((truth[0][corner], truth[1][corner]), (patch.instance_map, patch.type_map)))
    return score_image(sample.name, truth, (found.instance_map, found.type_map), pairs), found


def corners(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """The four 256x256 corners of an image (DATA.md); none if it is smaller, fewer if they would be the same."""
    if min(height, width) < PATCH:
        return
    for top in sorted({0, height - PATCH}):
        for left in sorted({0, width - PATCH}):
            yield slice(top, top + PATCH), slice(left, left + PATCH)


def compare_picture(sample: Sample, found: Segmentation, path: Path) -> None:
    """Truth on the left, prediction on the right, as PNG."""
    truth = outlines(sample.image, sample.instance_map, sample.type_map)
    prediction = outlines(sample.image, found.instance_map, found.type_map)
    cv2.imwrite(str(path), np.hstack([truth, prediction])[..., ::-1])


def write(folder: Path, scores: Sequence[ImageScore], summary: dict[str, Any], facts: dict[str, Any]) -> None:
    """metrics.json and per_image.json into a folder."""
    (folder / "metrics.json").write_text(json.dumps({**facts, "scores": summary}, indent=1) + "\n")
    rows = [
        {"name": s.name, "bpq": s.bpq, "tp_fp_fn": s.binary[:3].tolist(), "dice": float(s.dice[0] / max(s.dice[1], 1))}
        for s in scores
    ]
    (folder / "per_image.json").write_text(json.dumps(rows, indent=1) + "\n")


def folder_of(out: Path, artifact: Artifact, source: str, profile: Profile, precision: str = "float32") -> Path:
    """Where the results of a model lie."""
    return out / f"{artifact.name}-{artifact.version}-{source}-{profile}{'-int8' * (precision == INT8)}"


def run(
    artifact: Artifact,
    samples: Sequence[Sample],
    source: str,
    profile: Profile,
    folder: Path,
    engine: Engine | None = None,
    images: str = "",
) -> dict[str, Any]:
    """Evaluate a model and write everything but its card; the content of metrics.json.

    Args:
        artifact: the model.
        samples: labelled images that it never learnt from.
        source: their name within the data set.
        profile: views that are averaged.
        folder: for what is written.
        engine: runs the networks; the model's own sessions if None.
        images: the option that names them, if not `--source`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pairs = evaluated(Segmenter(artifact, engine) if engine else Segmenter(artifact), samples, profile)
    scores, found = [score for score, _ in pairs], [segmentation for _, segmentation in pairs]
    facts = {
        "model": f"{artifact.name}@{artifact.version}",
        "sha256": artifact.sha256,
        "data": f"lizard/{source}",
        "images": len(samples),
        "nuclei": sum(len(s.centres) for s in samples),
        "truth_counts": {k: sum(s.counts[k] for s in samples) for k in samples[0].counts},
        "found_counts": {k: sum(f.counts[k] for f in found) for k in samples[0].counts},
        "profile": profile,
        "precision": precision_of(engine),
        "command": f"python -m training.evaluate {artifact.name}@{artifact.version} --data lizard "
        f"{images or f'--source {source}'} --profile {profile}{' --precision int8' * (precision_of(engine) == INT8)}",
    }
    summary = summarise(scores)
    write(folder, scores, summary, facts)
    pictures(samples, pairs, folder)
    return {**facts, "scores": summary, "detail": detail(samples, scores, found, folder)}


def precision_of(engine: Engine | None) -> str:
    """What an engine calculates in; float32 if it does not say."""
    return str(getattr(engine, "precision", "float32"))


def pictures(samples: Sequence[Sample], pairs: Sequence[tuple[ImageScore, Segmentation]], folder: Path) -> None:
    """Truth beside prediction for the best image and the three worst by panoptic quality."""
    ranked = sorted(range(len(pairs)), key=lambda i: pairs[i][0].bpq)
    for label, index in {"best": ranked[-1], **{f"worst{n + 1}": i for n, i in enumerate(ranked[:WORST])}}.items():
        compare_picture(samples[index], pairs[index][1], folder / f"{label}_{samples[index].name}.png")


def detail(
    samples: Sequence[Sample], scores: Sequence[ImageScore], found: Sequence[Segmentation], folder: Path
) -> dict[str, Any]:
    """Where the errors lie and how honest the confidence is; the reliability plot is drawn into the folder."""
    given = reliability.answers(samples, found)
    rows = reliability.bins(given.sure[given.met], given.right[given.met].astype(float))
    reliability.plot(rows, "class confidence on the held-out images", folder / "reliability.png")
    fates = failures.together([failures.fates(s, f) for s, f in zip(samples, found, strict=True)])
    worst = sorted(zip(scores, samples, strict=True), key=lambda pair: pair[0].bpq)[:WORST]
    content = {
        "calibration_error": reliability.error(rows),
        "calibration_interval": reliability.interval(given),
        "calibration_by_class": reliability.by_class(given),
        "unmet": {
            "nuclei": int((~given.met).sum()),
            "of": len(given.met),
            "confidence": float(given.sure[~given.met].mean()) if not given.met.all() else None,
            "confidence_of_met": float(given.sure[given.met].mean()) if given.met.any() else None,
        },
        "reliability": rows,
        "by_size": failures.table(fates, "area_um2"),
        "by_crowding": failures.table(fates, "neighbours"),
        "worst": [{"name": s.name, "bpq": s.bpq, "nuclei": len(sample.centres)} for s, sample in worst],
        "without_one": without_one(scores, "r2_common") if len(scores) > 1 else [],
    }
    (folder / "detail.json").write_text(json.dumps(content, indent=1) + "\n")
    return content


def differences(one: Segmenter, other: Segmenter, samples: Sequence[Sample], profile: Profile) -> str:
    """Which scores differ between two models, by a paired bootstrap over the images; as Markdown."""
    first, second = (evaluate(segmenter, samples, profile) for segmenter in (one, other))
    lines = [f"| score | {_titled(one)} less {_titled(other)} | 95 % |", "|---|---|---|"]
    for name, gap in compare(first, second).items():
        lines.append(f"| {name} | {gap['value']:+.3f} | {gap['low']:+.3f} to {gap['high']:+.3f} |")
    return "\n".join(lines)


def _titled(segmenter: Segmenter) -> str:
    artifact, int8 = segmenter.artifact, precision_of(segmenter.engine) == INT8
    return f"{artifact.name}@{artifact.version}{' in int8' * int8}"


def of_views(artifact: Artifact, samples: Sequence[Sample], profile: Profile) -> dict[str, Any]:
    """The same of the other profile: its scores, and by how much each is above those of the first."""
    other: Profile = "accurate" if profile == "fast" else "fast"
    segmenter = Segmenter(artifact)
    others, own = (evaluate(segmenter, samples, name) for name in (other, profile))
    return {"profile": other, "scores": summarise(others), "gaps": compare(others, own)}


def in_int8(artifact: Artifact, samples: Sequence[Sample], profile: Profile) -> dict[str, Any]:
    """What calculating in int8 makes of a model's scores: each, and by how much it is above the one in float32."""
    segmenters = (Segmenter(artifact, proven(artifact, INT8)), Segmenter(artifact))
    bytewise, plain = (evaluate(segmenter, samples, profile) for segmenter in segmenters)
    return {"scores": summarise(bytewise), "gaps": compare(bytewise, plain)}


def studies(artifact: Artifact, samples: Sequence[Sample], profile: Profile) -> dict[str, Any]:
    """What takes long: what int8 costs, and what spoils a model."""
    int8 = {"int8": in_int8(artifact, samples, profile)} if artifact.manifest.int8 else {}
    return {**int8, "sensitivity": sensitivity.study(Segmenter(artifact), samples, profile)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME or NAME@VERSION")
    parser.add_argument("--data", choices=["lizard"], default="lizard")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--source", default="consep", help="of the data set; consep is held out")
    images.add_argument("--run", type=Path, help="run folder whose validation images are looked at")
    parser.add_argument("--profile", choices=["fast", "accurate"], default="fast")
    parser.add_argument("--root", type=Path, default=lizard.default_root(), help="root of the data set")
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    parser.add_argument("--precision", choices=["float32", INT8], default="float32", help="int8: of models that can")
    parser.add_argument("--against", help="another model, whose scores on the same images are compared in pairs")
    parser.add_argument(
        "--card",
        choices=["whole", "scores"],
        nargs="?",
        const="whole",
        help="write the scores into the model's manifest and card; scores: what spoils it and what int8 costs stay as "
        "the card has them",
    )
    arguments = parser.parse_args()
    if arguments.run and arguments.card:
        parser.error("a card tells of images that nothing was chosen by: --card does not go with --run")
    if arguments.card and arguments.precision == INT8:
        parser.error("a card tells of both: --card does not go with --precision int8")
    artifact = load_artifact(arguments.model, arguments.store)
    if arguments.card == "whole" and artifact.manifest.int8:
        proven(artifact, INT8)  # not every CPU can say what int8 costs; one that cannot says so before the work
    if arguments.run:
        source, samples = "validation", validation_images(arguments.run, arguments.root, artifact)
    else:
        source, samples = arguments.source, lizard.read(arguments.root, [arguments.source])
    engine = proven(artifact, arguments.precision)
    folder = folder_of(arguments.out, artifact, source, arguments.profile, arguments.precision)
    named = f"--run {arguments.run}" if arguments.run else ""
    result = run(artifact, samples, source, arguments.profile, folder, engine, named)
    print(card.table(result))
    if arguments.against:
        other = Segmenter(load_artifact(arguments.against, arguments.store))
        print(differences(Segmenter(artifact, engine), other, samples, arguments.profile))
    if arguments.card:
        result["detail"]["views"] = of_views(artifact, samples, arguments.profile)
        if arguments.card == "whole":
            result["detail"] |= studies(artifact, samples, arguments.profile)
        card.update(artifact, result, folder / "reliability.png")


if __name__ == "__main__":
    main()
