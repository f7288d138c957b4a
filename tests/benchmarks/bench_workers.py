"""Should nuclei be separated in threads or in processes?

    python -m tests.benchmarks.bench_workers [--tiles 48] [--rounds 5]

The real maps of real tiles are separated, described and written as GeoJSON, as a request does it, in one thread, in
two threads, and in two processes (pebble) to which image and maps go through slots of shared memory and from which the
bytes of the answer come back; in turn (A-B-C-A-B-C). Takes about a minute.

What to read in it: the kernels release the GIL, the description and the encoder partly do not. Threads need no slot
ring, no second copy of the maps, no /dev/shm and no further 200 MB per worker. What they cannot do is survive a crash
of native code: a segmentation fault in a thread ends the service, in a process one tile.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.shared_memory import SharedMemory

import cv2
import numpy as np

from app.api.analysis import GEOJSON, WRITERS, Analysis, Limits
from app.api.decoding import DecodedImage, decode
from app.nuclei import hover, load_artifact
from app.nuclei.engine import OnnxEngine
from app.nuclei.types import HoverMaps, Mpp, UInt8
from tests.benchmarks.loading import entry, options, real_tiles, report

SIDE, CHANNELS = 256, 1 + 2 + 7
MAX_PIXELS = 25_000_000
WORKERS = 2
SLOTS = 2 * WORKERS + 2
MAP_BYTES = SIDE * SIDE * CHANNELS * 4
SLOT_BYTES = MAP_BYTES + SIDE * SIDE * 3
DIFFERENT = 32


@dataclass(frozen=True)
class Tile:
    """A decoded tile (256, 256, 3) and the network's maps of it (256, 256, 10): np_prob, hv, type_prob."""

    image: UInt8
    maps: np.ndarray


@dataclass(frozen=True)
class Known:
    """An engine that has seen its tile already."""

    maps: np.ndarray

    def predict(self, patches: UInt8) -> HoverMaps:
        """The maps, whatever is asked."""
        return HoverMaps(self.maps[None, ..., 0], self.maps[None, ..., 1:3], self.maps[None, ..., 3:])


def _ignore(stage: str, seconds: float) -> None:
    """Nobody watches."""


class Work:
    """Separate, describe and write one tile."""

    def __init__(self) -> None:
        """Loads the shipped model's manifest, and compiles."""
        cv2.setNumThreads(1)
        self._artifact = load_artifact("karyon-lite")
        hover.warm_up()

    def __call__(self, tile: Tile) -> bytes:
        """The tile's GeoJSON."""
        analysis = Analysis(self._artifact, Known(tile.maps), Limits(MAX_PIXELS, 0.1, 2.0), _ignore)
        result = analysis.run(DecodedImage(tile.image, None, ""), Mpp(0.5, 0.5), "fast", "bench")
        return WRITERS[GEOJSON](result)


def real_maps() -> list[Tile]:
    """Tiles and what the shipped network says of them."""
    engine = OnnxEngine.open(load_artifact("karyon-lite"))
    found = []
    for data in real_tiles()[:DIFFERENT]:
        image = decode(data, MAX_PIXELS).pixels
        maps = engine.predict(image[None])
        found.append(Tile(image, np.concatenate([maps.np_prob[0][..., None], maps.hv[0], maps.type_prob[0]], axis=-1)))
    return found


def threads(count: int, work: Work) -> Callable[[Sequence[Tile]], int]:
    """All tiles by so many threads; the bytes that came out."""

    def run(tiles: Sequence[Tile]) -> int:
        with ThreadPoolExecutor(count) as pool:
            return sum(len(written) for written in pool.map(work, tiles))

    return run


class Child:
    """What a worker process keeps: its work and the slots it has attached."""

    work: Work
    slots: dict[str, SharedMemory]


def begin() -> None:
    """Start of a worker process."""
    Child.work, Child.slots = Work(), {}


def separate_slot(name: str) -> bytes:
    """The GeoJSON of what lies in a slot."""
    if name not in Child.slots:
        Child.slots[name] = SharedMemory(name)
    return Child.work(view(Child.slots[name]))


def view(slot: SharedMemory) -> Tile:
    """A slot as a tile, without a copy."""
    maps = np.ndarray((SIDE, SIDE, CHANNELS), np.float32, slot.buf)
    return Tile(np.ndarray((SIDE, SIDE, 3), np.uint8, slot.buf, MAP_BYTES), maps)


class Processes:
    """Two worker processes and a ring of slots."""

    def __init__(self, pool: object, slots: list[SharedMemory]) -> None:
        self._pool, self._slots = pool, slots

    def __call__(self, tiles: Sequence[Tile]) -> int:
        """All tiles; the bytes that came out. A tile is copied into a slot once one is free."""
        free, busy, total = list(self._slots), {}, 0
        for tile in tiles:
            if not free:
                total += self._one(busy, free)
            slot = free.pop()
            view(slot).maps[:] = tile.maps
            view(slot).image[:] = tile.image
            busy[self._pool.schedule(separate_slot, args=[slot.name], timeout=60)] = slot  # type: ignore[attr-defined]
        while busy:
            total += self._one(busy, free)
        return total

    @staticmethod
    def _one(busy: dict[Future[bytes], SharedMemory], free: list[SharedMemory]) -> int:
        done = next(as_completed(busy))
        free.append(busy.pop(done))
        return len(done.result())


@contextmanager
def processes() -> Iterator[Processes]:
    """Worker processes, warm, and gone at the end with their slots."""
    from pebble import ProcessPool

    slots = [SharedMemory(create=True, size=SLOT_BYTES) for _ in range(SLOTS)]
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPool(WORKERS, initializer=begin, context=context) as pool:
            yield Processes(pool, slots)
    finally:
        for slot in slots:
            with suppress(BufferError):  # views of it may still be there; its name goes in any case
                slot.close()
            slot.unlink()


def rate(run: Callable[[Sequence[Tile]], int], tiles: Sequence[Tile]) -> float:
    """Tiles per second."""
    began = time.perf_counter()
    assert run(tiles) > 0
    return len(tiles) / (time.perf_counter() - began)


def tell(found: dict[str, list[float]]) -> None:
    """Print a table and merge."""
    print(f"{'':30}{'tiles/s':>10}   of two threads")
    two = statistics.median(found["2 threads"])
    for name, rates in found.items():
        middle = statistics.median(rates)
        print(f"{name:30}{middle:10.1f}   {middle / two:.2f}   ({min(rates):.1f} to {max(rates):.1f})")
    other = statistics.median(found["2 processes"]) if "2 processes" in found else float("nan")
    report(
        [
            entry("postprocess_thread_per_s", statistics.median(found["1 thread"]), "tiles/s, 1 thread", None, None),
            entry("postprocess_threads_per_s", two, f"tiles/s, {WORKERS} threads", None, None),
            entry("postprocess_processes_per_s", other, f"tiles/s, {WORKERS} processes, shared memory", None, None),
        ]
    )


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 0.0, tiles=48, rounds=5)
    different = real_maps()
    tiles = [different[i % len(different)] for i in range(own.tiles)]
    work = Work()
    arms: dict[str, Callable[[Sequence[Tile]], int]] = {"1 thread": threads(1, work), "2 threads": threads(2, work)}
    if find_spec("pebble") is None:
        print("pebble is not installed: pip install '.[bench]'")
        tell(measure(arms, tiles, own.rounds))
        return
    with processes() as two:
        tell(measure(arms | {"2 processes": two}, tiles, own.rounds))


def measure(
    arms: dict[str, Callable[[Sequence[Tile]], int]], tiles: Sequence[Tile], rounds: int
) -> dict[str, list[float]]:
    """Tiles per second of every arm in every round, after one round that does not count."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(rounds + 1):
        for name, run in arms.items():
            value = rate(run, tiles)
            if round_:
                found[name].append(value)
    return found


if __name__ == "__main__":
    main()
