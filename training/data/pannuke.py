"""How is PanNuke read? As its three folds were published, by the channel of a nucleus and its id there.

`images/foldK/images.npy` (N, 256, 256, 3) in 0..255, `images/foldK/types.npy` (N,) tissue names and
`masks/foldK/masks.npy` (N, 256, 256, 6): ids of the nuclei of five classes, and background. They lie below the root
itself or below a folder per fold (`Fold 1`, `fold1`, `fold_1`), as the archives unpack.

The publisher does not say which slide a patch was cut from, so the whole fold is the group of its patches: validate
on a fold, never on part of one. Ids are unique in their channel alone, hence numbered anew; a pixel that two channels
claim stays with the first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.nuclei.types import Int32, UInt8
from training.data import layout
from training.data.layout import WrongLayout
from training.data.sample import Sample
from training.data.taxonomies import PANNUKE

MPP = 0.25
LICENCE = "CC BY-NC-SA 4.0"
SIDE = 256
FOLDS = ("fold1", "fold2", "fold3")


def detect(root: Path) -> bool:
    """Whether at least one fold is there."""
    return root.is_dir() and any(_home(root, fold) for fold in FOLDS)


def iterate(root: Path, sources: Collection[str] | None = None) -> Iterator[Sample]:
    """The patches of each fold one by one; no more than one is in memory.

    Args:
        root: holds the folds.
        sources: of "fold1", "fold2", "fold3"; None for all three.

    Raises:
        WrongLayout: a fold or a file is missing or does not fit another; the message names it.
    """
    for fold in layout.known(sources, FOLDS, "PanNuke"):
        home = _home(root, fold)
        if home is None:
            raise WrongLayout(f"{fold} is missing: no images/{fold}/images.npy in {root} or in a folder of that fold")
        yield from _fold(home, fold)


def read(root: Path, sources: Collection[str] | None = None) -> list[Sample]:
    """All that `iterate` gives: about 1.2 GB a fold."""
    return list(iterate(root, sources))


def _home(root: Path, fold: str) -> Path | None:
    named = [p for p in sorted(root.iterdir()) if re.sub(r"[ _-]", "", p.name.lower()) == fold]
    return next((p for p in (root, *named) if (p / "images" / fold / "images.npy").is_file()), None)


def _fold(home: Path, fold: str) -> Iterator[Sample]:
    pictures, mask_file = home / "images" / fold, home / "masks" / fold / "masks.npy"
    images = layout.array(pictures / "images.npy", (None, SIDE, SIDE, 3), "uif")
    tissues = layout.array(pictures / "types.npy", (len(images),), "US")
    masks = layout.array(mask_file, (len(images), SIDE, SIDE, len(PANNUKE.classes) + 1), "uif")
    for index, tissue in enumerate(tissues.astype(str)):
        image, mask = np.asarray(images[index]), np.asarray(masks[index])
        if not (image.min() >= 0 and image.max() <= 255):
            raise WrongLayout(f"{pictures / 'images.npy'}, patch {index}: values are not in 0..255")
        if not (mask.min() >= 0 and np.isfinite(mask.max())):
            raise WrongLayout(f"{mask_file}, patch {index}: an id is below 0 or no number")
        name = f"{fold}-{index:04d}-{tissue}"
        yield Sample(name, fold, fold, np.rint(image).astype(np.uint8), *instances_of(mask), MPP, PANNUKE, fold)


def instances_of(mask: npt.NDArray[Any]) -> tuple[Int32, UInt8]:
    """Instance map and the class of each id.

    Args:
        mask: (H, W, 6), ids from 1 in the first five channels, each channel counting on its own.

    Returns:
        (H, W) int32 with ids 1..N over all channels, and (N + 1,) uint8.
    """
    instance_map = np.zeros(mask.shape[:2], np.int32)
    types = [np.zeros(1, np.uint8)]
    for kind in range(1, len(PANNUKE.classes) + 1):
        channel = mask[..., kind - 1]
        inside = channel > 0
        ids, numbers = np.unique(channel[inside], return_inverse=True)
        start = sum(map(len, types))
        fresh = np.zeros_like(instance_map)
        fresh[inside] = numbers + start
        instance_map = np.where(instance_map == 0, fresh, instance_map)
        types.append(np.full(len(ids), kind, np.uint8))
    return instance_map, np.concatenate(types)
