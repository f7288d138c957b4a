"""What is in a data set? Counted image by image, so that one larger than memory can be described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import UInt8
from training.data.readers import Reader
from training.data.sample import Sample
from training.pictures import rim

COLOURS = {c.name: c.colour for c in CLASSES} | {
    "neoplastic": (0, 158, 115),
    "inflammatory": (0, 114, 178),
    "dead": (240, 228, 66),
    "macrophage": (240, 228, 66),
}
"""By name, so that a class looks alike in every data set; no two of one data set are the same."""
LEGEND_LINE = 28
"""Height in pixels of a line of the legend."""


@dataclass
class DataCard:
    """Running counts of a data set.

    Attributes:
        reader: of the data set.
        images, pixels: so far.
        mpps: every resolution that occurred.
        groups: (collection, group) of each source image.
        folds: images per published fold.
        collections: images per collection.
        nuclei: per (collection, class name).
        areas_um2: of every nucleus.
        example: the image with most classes, of those the one with most nuclei.
    """

    reader: Reader
    images: int = 0
    pixels: int = 0
    mpps: set[float] = field(default_factory=set)
    groups: set[tuple[str, str]] = field(default_factory=set)
    folds: Counter[str] = field(default_factory=Counter)
    collections: Counter[str] = field(default_factory=Counter)
    nuclei: Counter[tuple[str, str]] = field(default_factory=Counter)
    areas_um2: list[float] = field(default_factory=list)
    example: Sample | None = None
    _best: tuple[int, int] = (-1, -1)

    def add(self, sample: Sample) -> None:
        """Count one image."""
        counts = sample.counts
        self.images += 1
        self.pixels += sample.instance_map.size
        self.mpps.add(sample.mpp)
        self.groups.add((sample.collection, sample.group))
        self.collections[sample.collection] += 1
        self.folds[sample.fold] += bool(sample.fold)
        self.nuclei.update({(sample.collection, name): n for name, n in counts.items()})
        sizes = np.bincount(sample.instance_map.ravel())[1:]
        self.areas_um2 += (sizes[sizes > 0] * sample.mpp**2).tolist()
        worth = (sum(n > 0 for n in counts.values()), sum(counts.values()))
        if worth > self._best:
            self.example, self._best = sample, worth

    def markdown(self) -> str:
        """The card: two tables."""
        low, high = min(self.mpps), max(self.mpps)
        rows = {
            "data set": f"{self.reader.name}, classes of {self.reader.taxonomy.name}",
            "licence": self.reader.licence,
            "images": f"{self.images:,}, {self.pixels / 1e6:,.1f} megapixels",
            "um per pixel": f"{low:g}" if low == high else f"{low:g} to {high:g}",
            "groups that stay together": f"{len(self.groups):,}",
            "images per collection": _list(self.collections),
            "images per published fold": _list(+self.folds) or "none published",
            "median area of a nucleus": f"{np.median(self.areas_um2):.1f} um²" if self.areas_um2 else "no nuclei",
        }
        head = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""]
        return "\n".join(head + self._class_rows())

    def _class_rows(self) -> list[str]:
        names, total = sorted(self.collections), max(self.nuclei.total(), 1)
        lines = ["| class | nuclei | share | " + " | ".join(names) + " |", "|" + "---|" * (3 + len(names))]
        for kind in self.reader.taxonomy.classes:
            each = [self.nuclei[name, kind] for name in names]
            cells = [f"{sum(each):,}", f"{sum(each) / total:.1%}", *(f"{n:,}" for n in each)]
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        each = [sum(self.nuclei[name, kind] for kind in self.reader.taxonomy.classes) for name in names]
        return [*lines, f"| all | {sum(each):,} | | " + " | ".join(f"{n:,}" for n in each) + " |"]


def describe(reader: Reader, samples: Iterable[Sample]) -> DataCard:
    """Count all images."""
    card = DataCard(reader)
    for sample in samples:
        card.add(sample)
    return card


def overlay(sample: Sample) -> UInt8:
    """(2 H + legend, 2 W, 3): the image twice as large, its nuclei outlined, below it what the colours mean."""
    picture = np.repeat(np.repeat(sample.image, 2, axis=0), 2, axis=1)
    instances = np.repeat(np.repeat(sample.instance_map, 2, axis=0), 2, axis=1)
    colours = np.array([(0, 0, 0), *(COLOURS[name] for name in sample.taxonomy.classes)], np.uint8)
    edge = rim(instances, 2)
    picture[edge] = colours[sample.types[instances[edge]]]
    lines = [f"{name} {n:,}" for name, n in sample.counts.items()]
    legend = np.full((LEGEND_LINE * len(lines), picture.shape[1], 3), 255, np.uint8)
    for line, text in enumerate(lines, start=1):
        bottom, colour = LEGEND_LINE * line, tuple(map(int, colours[line]))
        cv2.rectangle(legend, (8, bottom - 22), (28, bottom - 6), colour, -1)
        cv2.putText(legend, text, (36, bottom - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([picture, legend])


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items()))
