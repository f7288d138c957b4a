"""Should nuclei be separated in threads or in processes?

    python -m tests.benchmarks.bench_workers [--tiles 48] [--rounds 5]

The real maps of real tiles are separated, described and written as GeoJSON, as a request does it: in one thread, in
four threads, and in four threads that hand the separation to two worker processes, as the service does; in turn
(A-B-C-A-B-C). Then the same with an event loop beside it, as in the service: how late is that loop? Takes a minute.

What to read in it: the kernels release the interpreter's lock, the description and the encoder partly do not. Threads
need no second memory; what they cannot do is survive a crash of native code: a segmentation fault in a thread ends
the service, in a process one tile is done again.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import cv2
import numpy as np

from app.api.analysis import GEOJSON, WRITERS, Analysis, Limits
from app.api.decoding import DecodedImage, decode
from app.nuclei import hover, load_artifact
from app.nuclei.engine import OnnxEngine
from app.nuclei.separation import HERE, Separator
from app.nuclei.types import HoverMaps, Mpp, UInt8
from app.serving.postprocess import Processes
from tests.benchmarks.loading import entry, options, real_tiles, report

MAX_PIXELS = 25_000_000
WORKERS, THREADS = 2, 4
DIFFERENT = 32
TICK_S = 0.005


@dataclass(frozen=True)
class Tile:
    """A decoded tile (256, 256, 3) and the network's maps of it."""

    image: UInt8
    maps: HoverMaps


@dataclass(frozen=True)
class Known:
    """An engine that has seen its tile already."""

    maps: HoverMaps

    def predict(self, patches: UInt8) -> HoverMaps:
        """The maps, whatever is asked."""
        return HoverMaps(self.maps.np_prob[None], self.maps.hv[None], self.maps.type_prob[None])


def _ignore(*_: object) -> None:
    """Nobody watches."""


class Work:
    """Separate, describe and write one tile."""

    def __init__(self, separator: Separator) -> None:
        """Loads the shipped model's manifest."""
        self._artifact, self._separator = load_artifact("karyon-lite"), separator

    def __call__(self, tile: Tile) -> bytes:
        """The tile's GeoJSON."""
        limits = Limits(MAX_PIXELS, 0.1, 2.0)
        analysis = Analysis(self._artifact, Known(tile.maps), limits, _ignore, separator=self._separator)
        result = analysis.run(DecodedImage(tile.image, None, ""), Mpp(0.5, 0.5), "fast", "bench")
        return WRITERS[GEOJSON](result)


Arm = Callable[[Sequence[Tile]], None]


def real_maps() -> list[Tile]:
    """Tiles and what the shipped network says of them."""
    engine = OnnxEngine.open(load_artifact("karyon-lite"))
    images = [decode(data, MAX_PIXELS).pixels for data in real_tiles()[:DIFFERENT]]
    return [Tile(image, engine.predict(image[None])[0]) for image in images]


def arm(threads: int, separator: Separator) -> Arm:
    """All tiles by so many threads."""
    work = Work(separator)

    def run(tiles: Sequence[Tile]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            assert sum(len(written) for written in pool.map(work, tiles)) > 0

    return run


def rate(run: Arm, tiles: Sequence[Tile]) -> float:
    """Tiles per second."""
    began = time.perf_counter()
    run(tiles)
    return len(tiles) / (time.perf_counter() - began)


def lateness_ms(run: Arm, tiles: Sequence[Tile]) -> float:
    """How late an event loop of the same process turns meanwhile, p99."""
    late: list[float] = []

    async def ticking() -> None:
        job = asyncio.create_task(asyncio.to_thread(run, tiles))
        while not job.done():
            asked = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late.append(1000 * (time.perf_counter() - asked - TICK_S))
        await job

    asyncio.run(ticking())
    return float(np.percentile(late, 99))


def measure(arms: dict[str, Arm], tiles: Sequence[Tile], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Tiles per second and lateness of every arm in every round, after one round that does not count."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for round_ in range(rounds + 1):
        for name, run in arms.items():
            values = rate(run, tiles), lateness_ms(run, tiles)
            if round_:
                found[name].append(values)
    return found


def tell(found: dict[str, list[tuple[float, float]]]) -> None:
    """Print a table and merge."""
    print(f"{'':16}{'tiles/s':>10}{'loop late p99 ms':>20}")
    entries = []
    for name, values in found.items():
        rates, late = zip(*values, strict=True)
        middle, lateness = statistics.median(rates), statistics.median(late)
        print(f"{name:16}{middle:10.1f}{lateness:20.1f}   ({min(rates):.1f} to {max(rates):.1f} tiles/s)")
        slug = "postprocess_" + name.replace(" ", "_")
        entries.append(entry(f"{slug}_per_s", middle, "tiles/s", None, None))
        entries.append(entry(f"{slug}_loop_late_p99_ms", lateness, "ms", None, None))
    report(entries)


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 0.0, tiles=48, rounds=5)
    cv2.setNumThreads(1)
    hover.warm_up()
    different = real_maps()
    tiles = [different[i % len(different)] for i in range(own.tiles)]
    with closing(Processes(WORKERS, _ignore)) as workers:
        workers.start()
        arms = {"1 thread": arm(1, HERE), "threads": arm(THREADS, HERE), "processes": arm(THREADS, workers)}
        tell(measure(arms, tiles, own.rounds))


if __name__ == "__main__":
    main()
