"""How did a run go? One picture of its metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def plot(metrics: Path, picture: Path) -> None:
    """Draw every term over the epochs, training against validation, into a PNG."""
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(r["epoch"]) for r in rows]
    names = [n.removeprefix("validation_") for n in rows[0] if n.startswith("validation_")]
    figure, axes = pyplot.subplots(2, (len(names) + 1) // 2, figsize=(16, 6), layout="constrained")
    for axis, name in zip(axes.flat, names, strict=False):
        for side in ("train", "validation"):
            if f"{side}_{name}" in rows[0]:
                axis.plot(epochs, [float(r[f"{side}_{name}"]) for r in rows], marker=".", label=side)
        axis.set(title=name, xlabel="epoch")
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    for axis in list(axes.flat)[len(names) :]:
        axis.remove()
    figure.savefig(picture, dpi=90)
    pyplot.close(figure)
