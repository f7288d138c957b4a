"""What does the service give that a plain one, or LitServe, does not? The same model, decoding, separation and load.

    python -m tests.benchmarks.bench_rivals [--seconds 15] [--rounds 2]

All services are up at once, and are asked in turn (A-B-C-A-B-C):

* full: eight callers in a closed loop
* fitting: Poisson arrivals at 60 % of what Karyon did in this round
* too much: at 150 % of it; goodput counts answers within 2 s
* viewer: 1 request per second while another client keeps 64 tiles open; Karyon is told that those are bulk, the
  others know no such thing

Takes about services x rounds x 4 x seconds, 6 minutes as it stands. LitServe comes with the extra `bench`; without it
the plain service is measured alone.
"""

from __future__ import annotations

import base64
import os
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import orjson

from app.bench.arrivals import poisson
from app.bench.load import Ask, closed_loop, open_loop
from app.bench.processes import descendants
from app.bench.samples import Summary, percentile_ms, summarise
from app.bench.server import SERVE, own_server
from app.bench.target import Target
from tests.benchmarks.loading import MOST, OBJECTIVE_S, api_keys, entry, options, real_tiles, report

CALLERS, BULK_OPEN = 8, 64
FITTING, TOO_MUCH = 0.6, 1.5
VIEWER_PER_S = 1.0
KARYON, PLAIN, LITSERVE = "karyon", "plain", "litserve"
COMMANDS = {
    KARYON: SERVE,
    PLAIN: (sys.executable, "-m", "tests.benchmarks.rival_plain"),
    LITSERVE: (sys.executable, "-m", "tests.benchmarks.rival_litserve"),
}
SETTINGS = {"KARYON_API_KEYS": api_keys("viewer", "bulk"), "KARYON_WAITING_ROOM": "128"}
TIMEOUT_S = 60.0
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Rival:
    """One service and its two clients."""

    name: str
    viewer: Ask
    bulk: Ask


@contextmanager
def up(name: str) -> Iterator[str]:
    """A service and its address; what it leaves of its processes is ended."""
    settings = SETTINGS if name == KARYON else {}
    with (
        tempfile.TemporaryDirectory(prefix="karyon-bench-") as folder,
        own_server(Path(folder), COMMANDS[name], **settings) as server,
    ):
        yield server.address
        if name == LITSERVE:  # its workers outlive it otherwise
            for pid in [*descendants(server.process.pid), server.process.pid]:
                os.kill(pid, signal.SIGKILL)
            server.process.wait()


def rival(name: str, viewer: Target, bulk: Target) -> Rival:
    """How the clients of a service ask."""
    if name == KARYON:
        return Rival(name, viewer.segment, partial(bulk.segment, **{"X-Request-Class": "bulk"}))
    more = JSON if name == LITSERVE else {}
    return Rival(name, partial(viewer.segment, **more), partial(bulk.segment, **more))


async def full(own: Rival, seconds: float) -> float:
    """Tiles served per second when eight callers always want something."""
    samples = await closed_loop(own.viewer, CALLERS, seconds)
    return sum(s.ok for s in samples) / max(s.ended_s for s in samples)


async def at(own: Rival, rate: float, seconds: float, seed: int) -> Summary:
    """Poisson arrivals."""
    return summarise(await open_loop(own.viewer, poisson(rate, seconds, MOST, seed)), seconds, OBJECTIVE_S)


async def under_bulk(own: Rival, seconds: float, seed: int) -> list[float]:
    """Seconds that each of the viewer's requests took behind another client's work; the timeout for one not served."""
    async with anyio.create_task_group() as group:
        group.start_soon(closed_loop, own.bulk, BULK_OPEN, 10 * seconds)
        await anyio.sleep(2.0)
        samples = await open_loop(own.viewer, poisson(VIEWER_PER_S, seconds, MOST, seed))
        group.cancel_scope.cancel()
    await own.viewer(0)  # comes behind what a service goes on with though nobody waits for it any more
    return [s.latency_s if s.ok else TIMEOUT_S for s in samples]


Figures = dict[str, dict[str, list[float]]]


async def measure(addresses: dict[str, str], tiles: Sequence[bytes], seconds: float, rounds: int) -> Figures:
    """Figures per service and kind, of all rounds."""
    found: Figures = {name: defaultdict(list) for name in addresses}
    wrapped = [orjson.dumps({"image": base64.b64encode(tile).decode()}) for tile in tiles]
    async with AsyncExitStack() as stack:
        rivals = []
        for name, address in addresses.items():
            bodies = wrapped if name == LITSERVE else tiles
            pair = [
                await stack.enter_async_context(Target(address, bodies, key, TIMEOUT_S)) for key in ("viewer", "bulk")
            ]
            rivals.append(rival(name, *pair))
        for round_ in range(rounds):
            able = 0.0
            for own in rivals:
                figures = found[own.name]
                figures["full"].append(await full(own, seconds))
                able = able or figures["full"][-1]  # Karyon's, the first
                fitting = await at(own, FITTING * able, seconds, round_)
                figures["p50"].append(fitting.p50_ms)
                figures["p99"].append(fitting.p99_ms)
                too_much = await at(own, TOO_MUCH * able, seconds, 100 + round_)
                figures["goodput"].append(too_much.goodput_per_s)
                figures["viewer"].append(percentile_ms(await under_bulk(own, seconds, 200 + round_), 99))
                print(own.name, {kind: round(values[-1], 1) for kind, values in figures.items()}, flush=True)
    return found


def tell(found: Figures) -> None:
    """Print a table of medians and merge them."""
    print(f"{'':10}{'full/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'good/s at 150 %':>18}{'viewer p99 ms under bulk':>28}")
    entries = []
    for name, figures in found.items():
        full_, p50, p99, good, viewer = (
            statistics.median(figures[k]) for k in ("full", "p50", "p99", "goodput", "viewer")
        )
        print(f"{name:10}{full_:10.1f}{p50:10.0f}{p99:10.0f}{good:18.1f}{viewer:28.0f}")
        entries += [
            entry(f"rivals_{name}_full_per_s", full_, "tiles/s", None, None),
            entry(f"rivals_{name}_p99_ms", p99, f"ms at {FITTING:.0%} of Karyon's most", None, None),
            entry(f"rivals_{name}_goodput_per_s", good, f"tiles/s within 2 s at {TOO_MUCH:.0%}", None, None),
            entry(f"rivals_{name}_viewer_p99_ms", viewer, "ms behind 64 open tiles of another", None, None),
        ]
    report(entries)


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 15.0, rounds=2)
    tiles = real_tiles()
    names = [KARYON, PLAIN, *([LITSERVE] if find_spec("litserve") else [])]
    if LITSERVE not in names:
        print("LitServe is not installed: pip install '.[bench]'")
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(up(name)) for name in names}
        tell(anyio.run(measure, addresses, tiles, own.seconds, own.rounds))


if __name__ == "__main__":
    main()
