"""What is each level of an ensemble worth: a member, both, one view, three? All from one look at every patch.

    python -m training.levels karyon-ensemble --source consep --beside karyon-lite

prints the scores of every member and of all together, with one view and with three, and how far the last is above each
by a paired bootstrap; with --card, the last one's scores go into the model's manifest and card, which then has no study
of its sensitivity: that would take ten times as long, and is what `training.evaluate --card` is for.
A member's maps of a patch in a view are kept, so that all of it costs no more than the whole ensemble does.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from app.nuclei import Segmenter, load_artifact
from app.nuclei.artifact import Artifact, default_store
from app.nuclei.engine import OnnxEngine
from app.nuclei.types import Engine, HoverMaps, Profile, UInt8, combined
from training import card
from training.data import lizard
from training.data.sample import Sample
from training.deployed import Together
from training.evaluate import evaluate, folder_of, run
from training.scores import ImageScore, compare, summarise

SHOWN = {"mpq_plus": "mPQ+", "bpq": "bPQ", "dice": "Dice", "detection_f1": "detection F1", "r2_common": "R², common"}
PROFILES: tuple[Profile, ...] = ("fast", "accurate")


class Remembering:
    """An engine that looks at a patch once. Its memory grows by 40 bytes a pixel."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[bytes, HoverMaps] = {}

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `app.nuclei.types.Engine`."""
        found = [self._one(patch) for patch in patches]
        return combined(found, np.stack)

    def _one(self, patch: UInt8) -> HoverMaps:
        key = hashlib.sha256(np.ascontiguousarray(patch).tobytes()).digest() + bytes(str(patch.shape), "ascii")
        if key not in self.known:
            self.known[key] = self.engine.predict(patch[None])[0]
        return self.known[key]


class Level(NamedTuple):
    """A part of an ensemble: its name, and the score of every image."""

    title: str
    scores: list[ImageScore]


def members_of(artifact: Artifact) -> list[Remembering]:
    """An engine for each member of a model alone, on the CPU."""
    each = [replace(artifact.manifest, members=(member,)) for member in artifact.manifest.members]
    return [Remembering(OnnxEngine.open(Artifact(artifact.folder, manifest))) for manifest in each]


def measure(artifact: Artifact, members: Sequence[Remembering], samples: Sequence[Sample]) -> list[Level]:
    """Every member by itself, then all together where there are several, each with one view and with three."""
    groups = [([engine], entry.encoder) for engine, entry in zip(members, artifact.manifest.members, strict=True)]
    if len(members) > 1:
        groups.append((list(members), "all"))
    return [
        Level(f"{name}, `{profile}`", evaluate(Segmenter(artifact, Together(engines)), samples, profile))
        for engines, name in groups
        for profile in PROFILES
    ]


def table(levels: Sequence[Level]) -> str:
    """Scores of each level, and how far the last one is above it in mPQ+ by a paired bootstrap; as Markdown."""
    lines = [f"| level | {' | '.join(SHOWN.values())} | the last less this, mPQ+ (95 %) |"]
    lines.append("|---" * (len(SHOWN) + 2) + "|")
    for level in levels:
        found = summarise(level.scores)
        gap = compare(levels[-1].scores, level.scores)["mpq_plus"]
        shown = f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})" if level is not levels[-1] else ""
        lines.append("| " + " | ".join([level.title, *(f"{found[n]['value']:.3f}" for n in SHOWN), shown]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME or NAME@VERSION")
    parser.add_argument("--source", default="consep", help="of Lizard; consep is held out")
    parser.add_argument("--beside", help="a model of the default store, whose scores with one view come first")
    parser.add_argument("--card", action="store_true", help="write the last level's scores into the manifest and card")
    parser.add_argument("--root", type=Path, default=lizard.default_root(), help="root of the data set")
    parser.add_argument("--store", type=Path, default=default_store())
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"))
    arguments = parser.parse_args()
    artifact = load_artifact(arguments.model, arguments.store)
    samples = lizard.read(arguments.root, [arguments.source])
    levels = []
    if arguments.beside:
        other = load_artifact(arguments.beside)
        scores = evaluate(Segmenter(other), samples, "fast")
        levels.append(Level(f"{other.name} {other.version}, `fast`", scores))
    members = members_of(artifact)
    levels += measure(artifact, members, samples)
    folder = folder_of(arguments.out, artifact, arguments.source, "accurate")
    result = run(artifact, samples, arguments.source, "accurate", folder, Together(members))
    print(card.table(result))
    print(table(levels))
    (folder / "levels.md").write_text(table(levels) + "\n")
    if arguments.card:
        card.update(artifact, result, folder / "reliability.png")


if __name__ == "__main__":
    main()
