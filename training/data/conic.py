"""How is CoNIC read? As the challenge released it: 256x256 pieces of Lizard in two arrays and two tables.

`images.npy` (N, 256, 256, 3) uint8, `labels.npy` (N, 256, 256, 2) instance and class, `counts.csv` with a column per
class (nuclei that reach into the central 224x224), `patch_info.csv` with one name per patch, such as `consep_1-0000`:
the image of Lizard that it was cut from, and a number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from app.nuclei.types import Int32, UInt8
from training.data import layout
from training.data.layout import WrongLayout
from training.data.sample import Sample
from training.data.taxonomies import KARYON

MPP = 0.5
LICENCE = "CC BY-NC-SA 4.0"
SIDE = 256
FILES = ("images.npy", "labels.npy", "counts.csv", "patch_info.csv")


def detect(root: Path) -> bool:
    """Whether this could be CoNIC; a file may still be missing."""
    return sum((root / name).is_file() for name in FILES) > 1


def iterate(root: Path, sources: Collection[str] | None = None) -> Iterator[Sample]:
    """The patches one by one, in the order of the release; their images stay on disk until they are looked at.

    Args:
        root: holds the four files.
        sources: collections of Lizard ("glas", "consep", ...); None for all.

    Raises:
        WrongLayout: a file is missing or does not fit another; the message names it.
    """
    images = layout.array(root / "images.npy", (None, SIDE, SIDE, 3), "u")
    labels = layout.array(root / "labels.npy", (len(images), SIDE, SIDE, 2), "ui")
    if images.dtype != np.uint8:
        raise WrongLayout(f"{root / 'images.npy'} holds {images.dtype}, expected uint8")
    layout.table(root / "counts.csv", KARYON.classes, rows=len(images))
    names = _names(root / "patch_info.csv", len(images))
    collections = [name.split("_")[0] for name in names]
    wanted = layout.known(sources, sorted(set(collections)), "CoNIC")
    for index, (name, collection) in enumerate(zip(names, collections, strict=True)):
        if collection in wanted:
            where = f"{root / 'labels.npy'}, patch {index} ({name})"
            instance_map = np.ascontiguousarray(labels[index, ..., 0], np.int32)
            types = classes_of(instance_map, labels[index, ..., 1], where)
            group = name.rpartition("-")[0]
            yield Sample(name, collection, group, images[index], instance_map, types, MPP, KARYON)


def read(root: Path, sources: Collection[str] | None = None) -> list[Sample]:
    """All that `iterate` gives."""
    return list(iterate(root, sources))


def classes_of(instance_map: Int32, class_map: UInt8, where: str) -> UInt8:
    """(max id + 1,) class of each instance by the vote of its pixels, the lower class where votes are equal.

    Raises:
        WrongLayout: a class is out of range, or an instance has none.
    """
    span = len(KARYON.classes) + 1
    if class_map.min() < 0 or class_map.max() >= span or instance_map.min() < 0:
        raise WrongLayout(f"{where}: a class is not in 0..{span - 1}, or an instance is below 0")
    size = int(instance_map.max()) + 1
    pairs = instance_map.ravel().astype(np.int64) * span + class_map.ravel().astype(np.int64)
    votes = np.bincount(pairs, minlength=size * span).reshape(size, span)[1:]
    voted = votes[:, 1:].any(axis=1)
    if (votes.any(axis=1) & ~voted).any():
        raise WrongLayout(f"{where}: an instance has no class")
    return np.concatenate([[0], np.where(voted, votes[:, 1:].argmax(axis=1) + 1, 0)]).astype(np.uint8)


def _names(path: Path, count: int) -> list[str]:
    names = [row["patch_info"] for row in layout.table(path, ["patch_info"], rows=count)]
    for number, name in enumerate(names):
        if not all(name.rpartition("-")):
            raise WrongLayout(f"{path}, row {number + 1}: {name!r} is not IMAGE-NUMBER")
    if len(set(names)) < len(names):
        raise WrongLayout(f"{path} names a patch twice")
    return names
