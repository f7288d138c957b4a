"""How fast does the store keep tiles, and how fast does it answer a viewport on a slide of a million nuclei?

Tiles of 1024 nuclei (frayed outlines, about 47 corners each) are kept edge to edge, so each is settled with its
neighbours as in real use. Then viewports at random places are asked for: one of 1000 x 800 pixels is what a screen
shows at full size. Prints and asserts nothing. `python -m tests.benchmarks.bench_store [--tiles 1000] [--url postgresql://...]`
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from app.nuclei import instances
from app.nuclei.types import Mpp, Nuclei
from app.slides.columns import pack, unpack
from app.slides.database import Database
from app.slides.places import Box, Place
from app.slides.reading import totals, walk
from app.slides.records import ModelKey, NewSlide, NewTile
from app.slides.store import Store
from app.slides.viewing import viewport

SPACING, ROW = 24, 32
SIDE = SPACING * ROW
VIEWS = {"250 x 200 px": (250, 200), "1000 x 800 px": (1000, 800), "2000 x 1600 px": (2000, 1600)}
MODEL = ModelKey("bench", "1", "a" * 64, "b" * 64, "fast")


def nuclei(seed: int) -> Nuclei:
    """1024 ellipses with frayed edges."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.int32)
    for number, (row, col) in enumerate(np.ndindex(ROW, ROW), 1):
        axes, angle = rng.integers(4, 11, 2), float(rng.integers(180))
        centre = col * SPACING + SPACING // 2, row * SPACING + SPACING // 2
        cv2.ellipse(labels, centre, axes.tolist(), angle, 0, 360, number, -1)
    labels[(rng.random(labels.shape) < 0.15) & (cv2.erode((labels > 0).astype(np.uint8), np.ones((5, 5))) == 0)] = 0
    grid, _, _ = instances.tidy(labels)
    return instances.describe(grid, rng.dirichlet(np.ones(7), grid.shape).astype(np.float32))


def quantiles(work: Callable[[int], Any], times: int) -> str:
    """p50 and p99 of a call in milliseconds."""
    taken = []
    for number in range(times):
        began = time.perf_counter()
        work(number)
        taken.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(taken, [50, 99])
    return f"p50 {p50:7.1f} ms   p99 {p99:7.1f} ms"


def main() -> None:
    """Fill a store, ask it, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=1000)
    parser.add_argument("--url", help="default: SQLite in a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database.open(options.url or f"sqlite:///{Path(folder) / 'bench.sqlite'}")
        measure(Store(database), options.tiles)
        database.close()


def measure(store: Store, tiles: int) -> None:
    """All figures of one store."""
    kinds = [nuclei(seed) for seed in range(8)]
    packed = pack(kinds[0])
    print(f"bytes a nucleus: table {len(packed.table) / 1024:.0f}, rings {len(packed.rings) / 1024:.0f}", end="; ")
    print(f"{len(kinds[0].rings.points) / len(kinds[0]):.0f} corners each")
    print(f"pack 1024 nuclei     {quantiles(lambda i: pack(kinds[i % 8]), 100)}")
    print(f"unpack 1024 nuclei   {quantiles(lambda _: unpack(packed), 100)}")
    across = round(tiles**0.5)
    size = across * SIDE, -(-tiles // across) * SIDE
    slide = store.add_slide(NewSlide(*size, Mpp(0.5, 0.5)))

    def keep(number: int) -> None:
        x, y = number % across * SIDE, number // across * SIDE
        place = Place.inside(x, y, SIDE, SIDE, 0, size)
        store.put_tile(slide.id, NewTile(place, f"{number:064d}", MODEL, kinds[number % 8]))

    print(f"keep a tile          {quantiles(keep, tiles)}")
    rng = np.random.default_rng(0)
    for name, (width, height) in VIEWS.items():
        places = rng.uniform(0, 1, (300, 2)) * (np.array(size) - (width, height))
        found = []

        def view(number: int) -> None:
            x, y = places[number]  # noqa: B023
            box = Box(x, y, x + width, y + height)  # noqa: B023
            found.append(sum(len(each.nuclei) for each in viewport(store.database, slide.id, box, 50_000)))  # noqa: B023

        print(f"view {name:15} {quantiles(view, 300)}   {np.mean(found):.0f} nuclei")
    print(f"totals               {quantiles(lambda _: totals(store.database, slide.id), 20)}")
    began = time.perf_counter()
    count = sum(len(each.nuclei) for each in walk(store.database, slide.id))
    print(f"walk over {count} nuclei with rings: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
