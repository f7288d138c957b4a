"""How large are nuclei, and how far do views disagree, in the images learnt from? Bounds of two technical warnings.

    python -m training.plausibility karyon-lite [--write]

looks at squares of every image of training and validation under its own scale, and at the middle one under wrong
scales, and prints what `mpp_implausible` and `ensemble_disagreement` say (`app.nuclei.qc`). With --write the model's
manifest is given bounds of its own, as far beyond what was seen as `BEYOND` says; the table then is what they say.
Bounds drawn so give no warning on these squares; `--source consep` says what they do on images that they were not
drawn from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from app.nuclei import Segmenter, load_artifact, qc
from app.nuclei.artifact import Artifact, default_store
from app.nuclei.types import Profile, UInt8
from training.config import DataConfig
from training.data import lizard
from training.data.sample import Sample

SIDES = (256, 512)
RIGHT, FINE, COARSE = "as it is", "scale stated twice too fine", "scale stated twice too coarse"
MISSTATED: Mapping[str, float] = {RIGHT: 1.0, FINE: 0.5, COARSE: 2.0}
PROFILES: tuple[Profile, ...] = ("fast", "accurate")
FIGURES = sorted(qc.FOUND)
BEYOND = {"warn": 1.15, "fail": 1.6}
"""A bound lies so many times beyond the least or greatest figure that was seen: others will send other tissue."""


class Seen(NamedTuple):
    """A square of an image under one condition: the figures that could be measured."""

    name: str
    condition: str
    profile: Profile
    measures: dict[str, float]


def look(segmenter: Segmenter, samples: Sequence[Sample]) -> list[Seen]:
    """Squares of every image under its own scale in all profiles, and the middle one under wrong scales in one view."""
    found = []
    for sample in tqdm(samples, desc="plausibility"):
        squares = list(squares_of(sample.image))
        looks = [(square, RIGHT, profile) for square in squares for profile in PROFILES]
        looks += [(squares[0], condition, PROFILES[0]) for condition in (FINE, COARSE)]
        for square, condition, profile in looks:
            measures = segmenter.segment(square, sample.mpp * MISSTATED[condition], profile).qc.measures
            kept = {name: measures[name] for name in FIGURES if name in measures}
            found.append(Seen(sample.name, condition, profile, kept))
    return found


def squares_of(image: UInt8) -> Iterator[UInt8]:
    """The middle 256 pixels of (H, W, 3) first, then its corners and the middle 512; no square twice."""
    known = set()
    for side, places in zip(SIDES, ((0.5, 0.0, 1.0), (0.5,)), strict=True):
        rooms = [max(0, length - side) for length in image.shape[:2]]
        for down, across in [(p, q) for p in places for q in places if (p == 0.5) == (q == 0.5)]:
            rows, cols = (
                slice(round(at * room), round(at * room) + side) for at, room in zip((down, across), rooms, strict=True)
            )
            square = np.ascontiguousarray(image[rows, cols])
            if (place := (rows.start, cols.start, square.shape)) not in known:
                known.add(place)
                yield square


def bounds(seen: Sequence[Seen]) -> dict[str, float]:
    """Bounds beyond all that was seen under the right scale, as a manifest has them."""
    right = [one.measures for one in seen if one.condition == RIGHT]
    drawn = {}
    for figure in FIGURES:
        values = [measures[figure] for measures in right if figure in measures]
        for name in qc.DEFAULT_THRESHOLDS:
            of, side, verdict = name.split(".")
            if of == figure and values:
                beyond = BEYOND[verdict]
                drawn[name] = float(f"{max(values) * beyond if side == 'high' else min(values) / beyond:.2g}")
    return drawn


def table(seen: Sequence[Seen], thresholds: Mapping[str, float]) -> str:
    """Markdown: how each figure is spread, and how often it is a warning."""
    lines = [
        "| condition | profile | figure | squares | least | 5 % | median | 95 % | greatest | warned |",
        "|---" * 10 + "|",
    ]
    for condition in MISSTATED:
        for profile in PROFILES:
            under = [one for one in seen if (one.condition, one.profile) == (condition, profile)]
            for figure in FIGURES:
                values = [one.measures[figure] for one in under if figure in one.measures]
                if not values:
                    continue
                spread = " | ".join(f"{v:.3g}" for v in np.percentile(values, [0, 5, 50, 95, 100]))
                warned = sum(bool(qc.judge({figure: value}, thresholds)) for value in values)
                lines.append(f"| {condition} | {profile} | {figure} | {len(under)} | {spread} | {warned} |")
    return "\n".join(lines)


def give(artifact: Artifact, drawn: Mapping[str, float]) -> Artifact:
    """Write bounds into a model's manifest."""
    path = artifact.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"qc": dict(drawn)}, indent=1) + "\n")
    return replace(artifact, manifest=replace(artifact.manifest, qc=drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME or NAME@VERSION")
    parser.add_argument("--write", action="store_true", help="give the model's manifest the bounds that come of it")
    parser.add_argument("--source", help="collection of images to look at in place of those learnt from")
    parser.add_argument("--root", type=Path, default=lizard.default_root())
    parser.add_argument("--store", type=Path, default=default_store())
    arguments = parser.parse_args()
    if arguments.write and arguments.source:
        parser.error("bounds are drawn from the images learnt from: --write or --source, not both")
    artifact = load_artifact(arguments.model, arguments.store)
    sources = (arguments.source,) if arguments.source else DataConfig().sources
    seen = look(Segmenter(artifact), lizard.read(arguments.root, sources))
    if not arguments.source:
        drawn = bounds(seen)
        print("bounds that come of it:", json.dumps(drawn))
        artifact = give(artifact, drawn) if arguments.write else artifact
    print(table(seen, {**qc.DEFAULT_THRESHOLDS, **artifact.manifest.qc}))


if __name__ == "__main__":
    main()
