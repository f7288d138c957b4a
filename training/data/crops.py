"""Which pieces of the images a network sees, and with what targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from app.nuclei.targets import hv_targets
from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Float32, Int32, UInt8
from app.nuclei.views import VIEWS, View
from training.augment import Jitter, recolour, symmetry
from training.data.sample import Sample

Example = dict[str, Tensor]
"""image (3, P, P) uint8; np (P, P) int64; nc (P, P) int64; hv (2, P, P) float32.

With a teacher also soft_np (P, P), soft_hv (2, P, P), soft_nc (7, P, P) float32, and labelled (), 1.0 or 0.0."""
Teaching = npt.NDArray[np.float16]
HEAVIEST = 4.0
"""What a pixel of a small nucleus counts at most, where nuclei weigh by their area."""


class Place(NamedTuple):
    """Where a crop is cut: image, top-left corner, side."""

    which: int
    top: int
    left: int
    side: int


class RandomCrops(Dataset[Example]):
    """Varied crops from anywhere in the images; item i of epoch e is always the same.

    Args:
        samples: images to cut from.
        size: side of a crop in pixels.
        length: crops an epoch.
        jitter: how they are varied.
        rare_share: share of crops that are laid around a nucleus whose class was drawn first, each class as likely
            as another; the rest is laid anywhere, images by their area.
        seed: of everything drawn.
        teacher: maps of each image (H, W, 10) to learn from as well: np_prob, hv, type_prob; see training.distill.
        labelled: the first so many samples carry labels, the others are for the teacher alone; all of them if None.
        by_area: what a nucleus' pixels weigh goes with its area to minus this power; 0: no weights.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: int,
        length: int,
        jitter: Jitter,
        rare_share: float,
        seed: int,
        teacher: Sequence[Teaching] | None = None,
        labelled: int | None = None,
        by_area: float = 0.0,
    ) -> None:
        self.samples, self.size, self.length = samples, size, length
        self.jitter, self.rare_share, self.seed = jitter, rare_share, seed
        self.teacher = teacher
        self.labelled = len(samples) if labelled is None else labelled
        self.weights = weights_by_area(samples, by_area) if by_area else None
        self.epoch = 0
        areas = np.array([s.instance_map.size for s in samples], float)
        self.shares = areas / areas.sum()
        places = np.concatenate([np.insert(s.centres, 0, i, axis=1) for i, s in enumerate(samples)])
        self.by_class = [p for c in CLASSES if len(p := places[places[:, 3] == c.id])]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        place = self._place(rng)
        sample, view = self.samples[place.which], symmetry(rng) if self.jitter.symmetry else VIEWS[0]
        image = recolour(np.ascontiguousarray(view.see(self._cut(sample.image, place))), self.jitter, rng)
        instances = np.ascontiguousarray(view.see(self._cut(sample.instance_map, place)))
        targets = example(image, instances, sample.types)
        if self.weights:
            targets["weight"] = torch.from_numpy(self.weights[place.which][instances])
        if self.teacher is None:
            return targets
        maps = self._cut(self.teacher[place.which], place).astype(np.float32)
        return targets | soft_targets(maps, view, labelled=place.which < self.labelled)

    def _place(self, rng: np.random.Generator) -> Place:
        side = round(self.size * rng.uniform(1 - self.jitter.scale, 1 + self.jitter.scale))
        if self.by_class and rng.random() < self.rare_share:
            places = self.by_class[rng.integers(len(self.by_class))]
            which, row, col, _ = places[rng.integers(len(places))]
            top, left = (int(c - rng.uniform(0.1, 0.9) * side) for c in (row, col))
            return Place(int(which), top, left, side)
        which = int(rng.choice(len(self.samples), p=self.shares))
        height, width = self.samples[which].instance_map.shape
        top, left = (int(rng.integers(0, max(n - side, 0) + 1)) for n in (height, width))
        return Place(which, top, left, side)

    def _cut(self, array: np.ndarray, place: Place) -> np.ndarray:
        piece = cut(array, place.top, place.left, place.side)
        if place.side == self.size:
            return piece
        how = cv2.INTER_NEAREST if piece.dtype == np.int32 else cv2.INTER_LINEAR
        piece = piece.astype(np.float32) if piece.dtype == np.float16 else piece  # OpenCV has no half floats
        return np.asarray(cv2.resize(piece, (self.size, self.size), interpolation=how))


class GridCrops(Dataset[Example]):
    """Every image cut edge to edge, unvaried: for validation."""

    def __init__(self, samples: Sequence[Sample], size: int) -> None:
        self.samples, self.size = samples, size
        self.places = [
            (i, top, left)
            for i, s in enumerate(samples)
            for top in range(0, max(s.instance_map.shape[0] - size, 0) + 1, size)
            for left in range(0, max(s.instance_map.shape[1] - size, 0) + 1, size)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        which, top, left = self.places[index]
        sample = self.samples[which]
        image, instances = (cut(a, top, left, self.size) for a in (sample.image, sample.instance_map))
        return example(image, instances, sample.types)


def cut(array: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """A side x side piece, moved inside the array where it can be, mirrored beyond the edge where it cannot."""
    height, width = array.shape[:2]
    top, left = (min(max(start, 0), max(n - side, 0)) for start, n in ((top, height), (left, width)))
    piece = array[top : top + side, left : left + side]
    below, right = side - piece.shape[0], side - piece.shape[1]
    if below or right:
        # symmetric, not reflect: it also works where the image is smaller than what is missing
        piece = np.pad(piece, [(0, below), (0, right), (0, 0)][: array.ndim], mode="symmetric")
    return piece


def weights_by_area(samples: Sequence[Sample], power: float) -> list[Float32]:
    """What a pixel counts, by the id of its nucleus: its area to minus `power`; background counts 1.

    All nuclei together weigh what they would without, and none counts more than `HEAVIEST` or less than one part of it.

    Args:
        samples: their labels.
        power: 0 counts every pixel alike, 1 every nucleus.

    Returns:
        For each sample (max id + 1,) float32.
    """
    areas = [np.bincount(s.instance_map.ravel(), minlength=len(s.types)).astype(float) for s in samples]
    everyone = np.concatenate([a[1:][a[1:] > 0] for a in areas])
    scale = everyone.sum() / (everyone ** (1 - power)).sum() if len(everyone) else 1.0
    found = []
    for area in areas:
        weight = np.clip(scale * np.maximum(area, 1) ** -power, 1 / HEAVIEST, HEAVIEST)
        weight[0] = 1
        found.append(weight.astype(np.float32))
    return found


def example(image: UInt8, instances: Int32, types: UInt8) -> Example:
    """Image and targets of one patch as tensors."""
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "np": torch.from_numpy((instances > 0).astype(np.int64)),
        "nc": torch.from_numpy(types[instances].astype(np.int64)),
        "hv": torch.from_numpy(np.ascontiguousarray(hv_targets(instances).transpose(2, 0, 1))),
    }


def soft_targets(maps: Float32, view: View, labelled: bool) -> Example:
    """A teacher's maps (P, P, 10) as seen in a view, arrows turned, as tensors."""
    hv = view.see_hv(maps[..., 1:3])
    return {
        "soft_np": torch.from_numpy(np.ascontiguousarray(view.see(maps[..., 0]))),
        "soft_hv": torch.from_numpy(np.ascontiguousarray(hv.transpose(2, 0, 1))),
        "soft_nc": torch.from_numpy(np.ascontiguousarray(view.see(maps[..., 3:]).transpose(2, 0, 1))),
        "labelled": torch.tensor(float(labelled)),
    }
