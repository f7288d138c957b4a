"""Slides, tiles and nuclei for tests: drawn tissue, really described."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from app.nuclei import instances
from app.nuclei.types import Float64, Int32, Mpp, Nuclei, QualityReport, UInt8
from app.slides.places import Place
from app.slides.records import ModelKey, NewSlide, NewTile
from tests.drawn import draw_tissue, label_ink

MODEL = ModelKey("ink", "1", "a" * 64, "b" * 64, "fast")
SLIDE = NewSlide(600, 480, Mpp(0.5, 0.5))
WHOLE = draw_tissue(SLIDE.height, SLIDE.width, seed=3)


def described(labels: Int32, scale: tuple[float, float] = (1.0, 1.0)) -> Nuclei:
    """Nuclei of a label map, with probabilities that are no round numbers."""
    grid, _, _ = instances.tidy(labels)
    probs = np.random.default_rng(len(np.unique(grid))).dirichlet(np.ones(7), grid.shape).astype(np.float32)
    return instances.describe(grid, probs, scale)


def found(image: UInt8) -> Nuclei:
    """Nuclei of a drawn image."""
    return described(label_ink(image))


def tile_at(
    x: int, y: int, width: int, height: int, margin: int = 0, image: UInt8 = WHOLE, **changes: object
) -> NewTile:
    """What an analysis of that piece of the drawn slide gives."""
    piece = image[y : y + height, x : x + width]
    place = Place.inside(x, y, width, height, margin, (image.shape[1], image.shape[0]))
    digest = hashlib.sha256(piece.tobytes()).hexdigest()
    qc = QualityReport("warn", ("mpp_assumed",), {"tissue_fraction": 0.5})
    values = {"place": place, "content_sha256": digest, "model": MODEL, "nuclei": found(piece), "qc": qc}
    return NewTile(**(values | {"provenance": {"request_id": f"{x},{y}"}} | changes))


def cut_up(side: int, margin: int = 0, overlap: int = 0, image: UInt8 = WHOLE) -> list[NewTile]:
    """Tiles that cover the drawn slide, each `side` pixels or less."""
    height, width = image.shape[:2]
    step = side - 2 * margin - overlap
    places = [(x, y) for y in _starts(height, side, step) for x in _starts(width, side, step)]
    return [tile_at(x, y, min(side, width - x), min(side, height - y), margin, image) for x, y in places]


def _starts(length: int, side: int, step: int) -> list[int]:
    return list(range(0, max(1, length - side + step), step))


def assert_same_nuclei(ours: Nuclei, theirs: Nuclei) -> None:
    """To the bit, with dtypes."""
    for each in fields(Nuclei):
        pairs = [(getattr(ours, each.name), getattr(theirs, each.name))]
        if each.name == "rings":
            pairs = [(ours.rings.points, theirs.rings.points), (ours.rings.offsets, theirs.rings.offsets)]
        for mine, other in pairs:
            np.testing.assert_array_equal(mine, other, err_msg=each.name)
            assert mine.dtype == other.dtype, each.name


def by_place(nuclei: Nuclei) -> Float64:
    """(N, 3) centroid and area, sorted: which nuclei they are, whatever their order."""
    rows = np.column_stack([nuclei.centroid, nuclei.area])
    return rows[np.lexsort(rows.T)]
