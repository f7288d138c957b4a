"""What every reader gives: one annotated image, and the splits that keep a slide on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from app.nuclei.types import Float64, Int32, UInt8
from training.data.taxonomies import KARYON, Taxonomy


@dataclass(frozen=True)
class Sample:
    """One annotated image.

    Attributes:
        name: unique in its data set.
        collection: where it comes from (a source of Lizard, a fold of PanNuke).
        group: what must not be divided between training and validation (a slide or a patient), within the collection:
            publishers number their images alike.
        image: (H, W, 3) uint8 RGB.
        instance_map: (H, W) int32, 0 background, ids 1..N with gaps allowed.
        types: (max id + 1,) uint8, class of each id, 0 where there is no such id.
        mpp: um per pixel.
        taxonomy: what the classes mean.
        fold: the publisher's own division, "" where there is none.
    """

    name: str
    collection: str
    group: str
    image: UInt8
    instance_map: Int32
    types: UInt8
    mpp: float
    taxonomy: Taxonomy = KARYON
    fold: str = ""

    @property
    def type_map(self) -> UInt8:
        """(H, W) uint8 class of each pixel, 0 background."""
        return self.types[self.instance_map]

    @cached_property
    def centres(self) -> Float64:
        """(N, 3) float64 row, column and class of every nucleus."""
        rows, cols = np.nonzero(self.instance_map)
        ids = self.instance_map[rows, cols]
        sizes = np.bincount(ids, minlength=len(self.types))
        there = np.nonzero(sizes)[0]
        centres = [np.bincount(ids, weights=v, minlength=len(sizes))[there] / sizes[there] for v in (rows, cols)]
        return np.stack([*centres, self.types[there].astype(np.float64)], axis=1)

    @property
    def counts(self) -> dict[str, int]:
        """Nuclei per class name."""
        classes = self.taxonomy.classes
        found = np.bincount(self.centres[:, 2].astype(int), minlength=len(classes) + 1)
        return {name: int(found[i]) for i, name in enumerate(classes, start=1)}


class Leak(ValueError):
    """The two sides of a split share a source image; the message names it."""


def split_by_group(samples: Sequence[Sample], validation: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Divide samples so that no group is on both sides, about the same share of each collection for validation.

    Args:
        samples: of one data set.
        validation: share of each collection's samples, 0..1.
        seed: another seed, another split; the same seed, always the same one.

    Returns:
        Training and validation samples, each in the order given.
    """
    held: set[tuple[str, str]] = set()
    for collection in sorted({s.collection for s in samples}):
        members = [s for s in samples if s.collection == collection]
        groups = sorted({s.group for s in members}, key=lambda g: hashlib.sha256(f"{seed}|{g}".encode()).digest())
        wanted, taken = round(validation * len(members)), 0
        for group in groups:
            size = sum(s.group == group for s in members)
            if taken + size <= wanted:
                held.add((collection, group))
                taken += size
    training = [s for s in samples if (s.collection, s.group) not in held]
    validation_side = [s for s in samples if (s.collection, s.group) in held]
    assert_disjoint(training, validation_side)
    return training, validation_side


def split_by_collection(
    samples: Sequence[Sample], held_out: Collection[str], by: Literal["collection", "fold"] = "collection"
) -> tuple[list[Sample], list[Sample]]:
    """Hold out whole sources or published folds.

    Args:
        samples: of one data set.
        held_out: names of sources, or of folds.
        by: which of the two.

    Returns:
        The others and those held out, each in the order given.

    Raises:
        ValueError: a name is not there, or nothing is left to learn from.
        Leak: a slide or patient, or an image pixel by pixel, is on both sides.
    """
    there = {getattr(s, by) for s in samples}
    if not set(held_out) <= there or there <= set(held_out):
        raise ValueError(f"cannot hold out {sorted(held_out)}: the {by}s are {sorted(there)}, and one must remain")
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for sample in samples:
        sides[getattr(sample, by) in held_out].append(sample)
    assert_disjoint(*sides)
    return sides


def assert_disjoint(training: Sequence[Sample], held: Sequence[Sample]) -> None:
    """Make sure that nothing of what is held out was seen in training.

    Raises:
        Leak: a slide or patient is on both sides, or an image with nuclei is, whatever its name.
    """
    groups = {(s.collection, s.group) for s in training} & {(s.collection, s.group) for s in held}
    if groups:
        raise Leak(f"on both sides of the split: {', '.join(sorted(f'{group} of {c}' for c, group in groups))}")
    seen = {_digest(s): s.name for s in training if s.instance_map.any()}
    copies = [f"{s.name} is {seen[d]}" for s in held if (d := _digest(s)) in seen]
    if copies:
        raise Leak(f"the same image on both sides of the split: {', '.join(copies)}")


def _digest(sample: Sample) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(sample.image).data, digest_size=16).digest()
