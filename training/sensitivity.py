"""What do blur, stain, JPEG and a wrong scale cost? The same images, spoilt one way at a time.

    python -m training.sensitivity karyon-lite --source consep
    python -m training.sensitivity karyon-lite --run runs/lite

scores whole images under each condition beside the untouched ones. The first looks at held-out images, and nothing is
tuned by it; the second at the validation images of a run, and networks may be chosen by the mean over its conditions:
what is sent to a service is compressed and not always in focus.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from app.nuclei import Segmenter, load_artifact
from app.nuclei.artifact import default_store
from app.nuclei.engine import proven
from app.nuclei.types import Profile, UInt8
from training.augment import compressed, stained
from training.data import lizard
from training.data.sample import Sample
from training.scores import SCORES, WHOLE_IMAGE, ImageScore, compare, score_image
from training.validation import validation_images


@dataclass(frozen=True)
class Condition:
    """One way to spoil an image: what is done to its pixels, and by what factor its um per pixel is misstated."""

    spoil: Callable[[UInt8], UInt8]
    misstated: float = 1.0


def _as_is(image: UInt8) -> UInt8:
    return image


def _blurred(sigma: float) -> Callable[[UInt8], UInt8]:
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def _jpeg(quality: int) -> Callable[[UInt8], UInt8]:
    return lambda image: compressed(image, quality)


def _stain(haematoxylin: float, eosin: float) -> Callable[[UInt8], UInt8]:
    return lambda image: stained(image, (haematoxylin, eosin, 1.0))


CONDITIONS: Mapping[str, Condition] = {
    "as it is": Condition(_as_is),
    "scale stated 20 % too fine": Condition(_as_is, 0.8),
    "scale stated 25 % too coarse": Condition(_as_is, 1.25),
    "blur, sigma 0.5 um": Condition(_blurred(1.0)),
    "blur, sigma 1 um": Condition(_blurred(2.0)),
    "haematoxylin x 0.7": Condition(_stain(0.7, 1.0)),
    "haematoxylin x 1.3": Condition(_stain(1.3, 1.0)),
    "eosin x 0.7": Condition(_stain(1.0, 0.7)),
    "eosin x 1.3": Condition(_stain(1.0, 1.3)),
    "JPEG quality 70": Condition(_jpeg(70)),
    "JPEG quality 30": Condition(_jpeg(30)),
}


def scores(segmenter: Segmenter, samples: Sequence[Sample], condition: Condition, profile: Profile) -> list[ImageScore]:
    """Score whole images under one condition."""
    result = []
    for sample in samples:
        image = condition.spoil(sample.image)
        found = segmenter.segment(image, mpp=sample.mpp * condition.misstated, profile=profile)
        truth = (sample.instance_map, sample.type_map)
        result.append(score_image(sample.name, truth, (found.instance_map, found.type_map), []))
    return result


def study(segmenter: Segmenter, samples: Sequence[Sample], profile: Profile) -> list[dict[str, Any]]:
    """Every condition's scores and, against the untouched images, the paired 95 % interval of what bPQ loses."""
    rows: list[dict[str, Any]] = []
    untouched: list[ImageScore] = []
    for name, condition in tqdm(CONDITIONS.items(), desc="sensitivity"):
        found = scores(segmenter, samples, condition, profile)
        untouched = untouched or found
        everyone = range(len(found))
        row = {key: float(SCORES[key](found, everyone)) for key in WHOLE_IMAGE}
        rows.append({"condition": name, **row, "bpq_change": compare(found, untouched, ("bpq",))["bpq"]})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of a study."""
    lines = ["| condition | mPQ+ | bPQ | Dice | detection F1 | change of bPQ (95 %) |", "|---|---|---|---|---|---|"]
    for row in rows:
        change = row["bpq_change"]
        interval = f"{change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"
        cells = " | ".join(f"{row[key]:.3f}" for key in WHOLE_IMAGE)
        lines.append(f"| {row['condition']} | {cells} | {interval if row is not rows[0] else ''} |")
    mean = " | ".join(f"{np.mean([row[key] for row in rows]):.3f}" for key in WHOLE_IMAGE)
    lines.append(f"| mean | {mean} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME or NAME@VERSION")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--source", default="consep")
    images.add_argument("--run", type=Path, help="run folder whose validation images are looked at")
    parser.add_argument("--profile", choices=["fast", "accurate"], default="fast")
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32", help="int8: of models that can")
    parser.add_argument("--root", type=Path, default=lizard.default_root())
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    arguments = parser.parse_args()
    artifact = load_artifact(arguments.model, arguments.store)
    if arguments.run:
        name, samples = "validation", validation_images(arguments.run, arguments.root, artifact)
    else:
        name, samples = arguments.source, lizard.read(arguments.root, [arguments.source])
    engine = proven(artifact, arguments.precision)
    rows = study(Segmenter(artifact, engine), samples, arguments.profile)
    arguments.out.mkdir(parents=True, exist_ok=True)
    way = "-int8" if arguments.precision == "int8" else ""
    path = arguments.out / f"sensitivity-{artifact.name}-{artifact.version}-{name}-{arguments.profile}{way}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
