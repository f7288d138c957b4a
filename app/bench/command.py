"""What does `karyon bench` do? Measures one service from idle to full, on this machine, with real tiles.

1. alone: one request per second, which shows what the service adds to network and separation
2. full: so many callers at once as are asked for, which shows what it can do at most
3. rates: Poisson arrivals at shares of that, or at given rates
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from tqdm import tqdm

from app.bench.arrivals import poisson
from app.bench.load import closed_loop, open_loop
from app.bench.report import Phase, table, write_json
from app.bench.samples import Sample, keeping_up, per_second, percentile_ms, summarise
from app.bench.server import BenchRefused, local, own_server
from app.bench.target import Target
from app.bench.tiles import load_tiles

SHARES = (0.25, 0.5, 0.75, 0.9)
WARM_UP = 8
ALONE_PER_S = 1.0
SERVED_OF_ITS_OWN = ("infer", "postprocess")


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        rates: requests per second; empty: shares of what the service can do.
        seconds: of each phase.
        most: requests of each phase.
        callers: of the closed loop.
        objective_s: latency up to which an answer is good.
        seed: of the arrivals.
    """

    rates: Sequence[float]
    seconds: float
    most: int
    callers: int
    objective_s: float
    seed: int


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 0, or 5 if a request got neither an answer nor a refusal.

    Raises:
        BenchRefused: nothing could be measured.
    """
    try:
        tiles = load_tiles(arguments.tiles)
    except ValueError as error:
        raise BenchRefused(str(error)) from error
    plan = Plan(
        arguments.rate or (),
        arguments.seconds,
        arguments.requests,
        arguments.callers,
        arguments.objective_ms / 1000,
        arguments.seed,
    )
    key = arguments.key_file.read_text().strip() if arguments.key_file else None
    with _address(arguments.url) as address:
        print(f"{len(tiles)} tiles of 256 x 256 pixels, to {address}")
        phases, samples = anyio.run(measure, Target(address, tiles, key), plan)
    print(table(phases))
    print("latency in ms from the intended time of sending; late: how late the sender itself was, p99")
    print(overhead(samples))
    if arguments.json:
        write_json(arguments.json, phases, {"tiles": len(tiles), "objective_ms": arguments.objective_ms})
    return 5 if any(phase.summary.failed for phase in phases) else 0


@contextmanager
def _address(url: str | None) -> Iterator[str]:
    if url is not None:
        yield local(url)
        return
    with tempfile.TemporaryDirectory(prefix="karyon-bench-") as folder, own_server(Path(folder)) as server:
        yield server.address


async def measure(target: Target, plan: Plan) -> tuple[list[Phase], list[Sample]]:
    """Every phase in turn.

    Returns:
        The phases, and the samples of the first one.

    Raises:
        BenchRefused: the service answers nothing.
    """
    async with target:
        for number in range(WARM_UP):
            answer = await target.segment(number)
        if answer.status != 200:
            raise BenchRefused(f"the service answers a tile with status {answer.status or 'none'}")
        alone, samples = await open_phase("alone", target, ALONE_PER_S, plan)
        full = await full_phase(target, plan)
        rates = plan.rates or [share * full.summary.answered_per_s for share in SHARES]
        return [alone, full, *[(await open_phase(f"{rate:.1f}/s", target, rate, plan))[0] for rate in rates]], samples


async def open_phase(name: str, target: Target, rate: float, plan: Plan) -> tuple[Phase, list[Sample]]:
    """Poisson arrivals at one rate."""
    times = poisson(rate, plan.seconds, plan.most, plan.seed)
    cut_short = len(times) == plan.most
    seconds = float(times[-1]) if cut_short else plan.seconds
    with bar(name, len(times)) as told:
        samples = await open_loop(target.segment, times, told)
    windows = keeping_up(samples, seconds)
    return Phase(name, summarise(samples, seconds, plan.objective_s, windows)), samples


async def full_phase(target: Target, plan: Plan) -> Phase:
    """As much as the service can do."""
    name = f"full, {plan.callers} callers"
    with bar(name) as told:
        samples = await closed_loop(target.segment, plan.callers, plan.seconds, told, plan.most)
    seconds = max(sample.ended_s for sample in samples)
    return Phase(name, summarise(samples, seconds, plan.objective_s, per_second(samples, plan.seconds)))


@contextmanager
def bar(name: str, total: int | None = None) -> Iterator[Callable[[Sample], None]]:
    """A progress bar that counts samples; none where nobody watches."""
    with tqdm(total=total, desc=name, unit="request", disable=None, leave=False) as shown:
        yield lambda sample: shown.update() and None


def overhead(samples: Sequence[Sample]) -> str:
    """What the service adds to the network's time and to separation, as a sentence."""
    own = overheads_s(samples)
    if not own:
        return "the service does not tell its stages"
    return (
        f"alone, the service adds {1000 * statistics.median(own):.1f} ms (p99 {percentile_ms(own, 99):.1f}) "
        f"to inference and separation ({len(own)} requests)"
    )


def overheads_s(samples: Sequence[Sample]) -> list[float]:
    """Seconds of each served request that were neither inference nor separation, by the service's own word."""
    told = [s for s in samples if s.ok and s.answer.stages_ms.keys() >= set(SERVED_OF_ITS_OWN)]
    return [s.ended_s - s.sent_s - sum(s.answer.stages_ms[name] for name in SERVED_OF_ITS_OWN) / 1000 for s in told]
