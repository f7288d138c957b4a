"""What do two warnings rest on? The size of nuclei in the images learnt from, and how far views disagree there.

    python -m training.plausibility karyon-lite

looks at the middle of every image but the held-out ones, under its own scale and under wrong ones, and prints what
`mpp_implausible` and `ensemble_disagreement` would say (`app.nuclei.qc`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from app.nuclei import Segmenter, load_artifact
from app.nuclei.artifact import default_store
from app.nuclei.types import UInt8
from training.config import DataConfig
from training.data import lizard
from training.data.sample import Sample

SIDE = 256
MISSTATED: Mapping[str, float] = {
    "as it is": 1.0,
    "scale stated twice too fine": 0.5,
    "scale stated twice too coarse": 2,
}
FIGURES = {"nuclear_area_um2": "mpp_implausible", "disagreement": "ensemble_disagreement"}


class Seen(NamedTuple):
    """An image under one condition: the figures that could be measured, and the warnings that were given."""

    name: str
    condition: str
    measures: dict[str, float]
    codes: tuple[str, ...]


def look(segmenter: Segmenter, samples: Sequence[Sample]) -> list[Seen]:
    """Every image under every condition, in three views."""
    found = []
    for sample in tqdm(samples, desc="plausibility"):
        image = middle(sample.image)
        for condition, factor in MISSTATED.items():
            qc = segmenter.segment(image, sample.mpp * factor, "accurate").qc
            found.append(Seen(sample.name, condition, {k: v for k, v in qc.measures.items() if k in FIGURES}, qc.codes))
    return found


def middle(image: UInt8) -> UInt8:
    """The inner 256 x 256 pixels of (H, W, 3), or what there is of them."""
    top, left = (max(0, (length - SIDE) // 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])


def table(seen: Sequence[Seen]) -> str:
    """Markdown: least, median and greatest of each figure, and in how many images it is a warning."""
    lines = ["| condition | figure | images | least | 5 % | median | 95 % | greatest | warned |", "|---" * 9 + "|"]
    for condition in MISSTATED:
        under = [one for one in seen if one.condition == condition]
        for figure, code in FIGURES.items():
            values = [one.measures[figure] for one in under if figure in one.measures]
            spread = [f"{v:.3g}" for v in np.percentile(values, [0, 5, 50, 95, 100])] if values else ["-"] * 5
            warned = sum(code in one.codes for one in under)
            lines.append(f"| {condition} | {figure} | {len(values)} | {' | '.join(spread)} | {warned} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME or NAME@VERSION")
    parser.add_argument("--root", type=Path, default=lizard.default_root())
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    arguments = parser.parse_args()
    artifact = load_artifact(arguments.model, arguments.store)
    seen = look(Segmenter(artifact), lizard.read(arguments.root, DataConfig().sources))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"plausibility-{artifact.name}-{artifact.version}.json"
    path.write_text(json.dumps([one._asdict() for one in seen], indent=1) + "\n")
    print(table(seen))


if __name__ == "__main__":
    main()
