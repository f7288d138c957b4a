"""How fast does a viewer get around on a slide of a million nuclei?

Real nuclei (the labels of Lizard, repeated) are kept edge to edge, tile by tile, as analysed windows are. Then overlay
tiles of every level and viewports at random places are asked for, as bytes, one at a time: what was asked for before is
kept for the next one within the service's default cache, which holds a small part of such a slide. Every overlay tile
is drawn anew, although the service would give out again what it drew lately.

Merges two figures into out/bench/results.json. `python -m tests.benchmarks.bench_slides [--nuclei 1000000]`
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from app.nuclei import instances
from app.nuclei.types import Mpp, Nuclei
from app.settings import Settings
from app.slides import documents
from app.slides.database import Database
from app.slides.library import Library
from app.slides.overlays import overlay_png
from app.slides.places import Box, Place
from app.slides.pyramid import TILE
from app.slides.reading import totals
from app.slides.records import ModelKey, NewSlide, NewTile, Slide
from app.slides.store import Store
from app.slides.uploads import Files
from app.slides.views import Views, pyramid
from tests.benchmarks.results import merge

SIDE = 768
KINDS = 12
LEVELS = 9
MODEL = ModelKey("bench", "1", "a" * 64, "b" * 64, "fast")
SCREENS = {"1000 x 800": (1000, 800), "2000 x 1600": (2000, 1600)}
BARS = {"overlay_tile_p99_ms": 100.0, "viewport_p99_ms": 50.0}


def pieces(folder: Path) -> Iterator[Nuclei]:
    """Nuclei of squares cut from the middle of the largest labelled images."""
    files = sorted(folder.rglob("*.mat"), key=lambda path: (-path.stat().st_size, path.name))
    found = 0
    for path in files:
        labels = loadmat(path)
        whole = np.asarray(labels["inst_map"], np.int32)
        if min(whole.shape) < SIDE:
            continue
        top, left = ((side - SIDE) // 2 for side in whole.shape)
        kinds = np.zeros(whole.max() + 1, np.uint8)
        kinds[np.ravel(labels["id"])] = np.ravel(labels["class"])
        yield described(whole[top : top + SIDE, left : left + SIDE], kinds)
        found += 1
        if found == KINDS:
            return


def described(labels: np.ndarray, kinds: np.ndarray) -> Nuclei:
    """Nuclei of a label map, with probabilities that lean towards the true class."""
    grid, _, _ = instances.tidy(labels)
    probs = np.random.default_rng(0).dirichlet(np.full(7, 0.3), grid.shape).astype(np.float32)
    probs += 2 * np.eye(7, dtype=np.float32)[kinds[labels]]
    return instances.describe(grid, probs / probs.sum(-1, keepdims=True))


def fill(store: Store, kinds: list[Nuclei], wanted: int) -> Slide:
    """A square slide with at least so many nuclei."""
    tiles = -(-wanted * len(kinds) // sum(len(each) for each in kinds))
    across = int(np.ceil(tiles**0.5))
    side = across * SIDE
    slide = store.add_slide(NewSlide(side, side, Mpp(0.5, 0.5)))
    rng = np.random.default_rng(0)
    for number, (row, col) in enumerate(np.ndindex(across, across)):
        place = Place.inside(col * SIDE, row * SIDE, SIDE, SIDE, 0, (side, side))
        store.put_tile(slide.id, NewTile(place, f"{number:064d}", MODEL, kinds[rng.integers(len(kinds))]))
    return store.slide(slide.id)


def taken_ms(work: Callable[[], Any]) -> float:
    """Milliseconds that a call takes."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def overlays(views: Views, slide: Slide, each: int) -> dict[str, list[float]]:
    """Milliseconds per tile, by level."""
    levels, rng = pyramid(slide), np.random.default_rng(1)
    taken: dict[str, list[float]] = {}
    for level in range(levels.top, levels.top - LEVELS, -1):
        width, height = levels.size(level)
        for _ in range(each):
            col, row = rng.integers(-(-width // TILE)), rng.integers(-(-height // TILE))
            tile = levels.tile(level, int(col), int(row))
            draw = partial(overlay_png, views.database, slide, tile, None, views.outlines_to, views.opened)
            taken.setdefault(f"1/{tile.reduction}", []).append(taken_ms(draw))
    return taken


def viewports(views: Views, slide: Slide, size: tuple[int, int], times: int) -> list[float]:
    """Milliseconds per viewport, GeoJSON included."""
    rng, taken = np.random.default_rng(2), []
    for x, y in (rng.uniform(0, 1, (times, 2)) * (np.array([slide.width, slide.height]) - size)).tolist():
        box = Box(x, y, x + size[0], y + size[1])
        taken.append(taken_ms(partial(sent, views, slide, box)))
    return taken


def sent(views: Views, slide: Slide, box: Box) -> bytes:
    """The nuclei of a viewport as GeoJSON."""
    return documents.viewport(slide, slide.mpp, box, views.nuclei(slide, box, None))


def told(name: str, taken: list[float]) -> None:
    p50, p99 = np.percentile(taken, [50, 99])
    print(f"{name:24} p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   of {len(taken)}", flush=True)


def measure(folder: Path, labels: Path, options: argparse.Namespace) -> dict[str, float]:
    """All figures."""
    settings = Settings()
    store = Store(Database.open(f"sqlite:///{folder / 'bench.sqlite'}"))
    began = time.perf_counter()
    slide = fill(store, list(pieces(labels)), options.nuclei)
    kept = totals(store.database, slide.id)
    print(f"{kept.counted} nuclei in {kept.tiles} tiles, {time.perf_counter() - began:.0f} s", flush=True)
    library = Library(store, Files(folder / "files", 1, store.room_bytes))
    views = Views.of(library, settings.view_cache_bytes, settings.outlines_to, 10**6)
    overlays(views, slide, 2)  # what is compiled and imported at first use
    taken = overlays(views, slide, options.times)
    for name, each in taken.items():
        told(f"overlay at {name}", each)
    seen = {name: viewports(views, slide, size, 2 * options.times) for name, size in SCREENS.items()}
    for name, each in seen.items():
        told(f"viewport {name}", each)
    store.database.close()
    return {
        "overlay_tile_p99_ms": max(float(np.percentile(each, 99)) for each in taken.values()),
        "viewport_p99_ms": float(np.percentile(seen["2000 x 1600"], 99)),
    }


def main() -> int:
    """Measure, print, merge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=150, help="tiles of each level, and half of the viewports")
    options = parser.parse_args()
    labels = Path(os.environ.get("KARYON_DATA", "../shared/data")) / "lizard" / "Lizard_Labels"
    figures: dict[str, float] = {}
    if labels.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(Path(folder), labels, options)
    else:
        print("no labels of Lizard under KARYON_DATA: nothing to measure", file=sys.stderr)
    merge(
        [
            {
                "name": name,
                "value": round(figures[name], 2) if figures else None,
                "unit": "ms",
                "bar": bar,
                "holds": figures[name] < bar if figures else None,
            }
            for name, bar in BARS.items()
        ]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
