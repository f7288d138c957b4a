"""How much of what the network can do on this CPU does the service deliver?

    python -m tests.benchmarks.bench_goodput [--seconds 20] [--rounds 3]

Goodput ratio G: what the service delivers at the highest rate of Poisson arrivals at which the interactive p99 stays
within 2 s and nothing but 2xx is answered, over what bare ONNX Runtime does at the batch size that calibration finds.
(What is delivered, not what is asked for: for a while a queue takes in more than comes out.) Post-processing is left
out of the service (`tests.benchmarks.without_separation`), and with it the worker processes and the memory shared with
them, which nobody would empty; the load generator runs in both arms. Every rate is a share of the bare rate measured
just before it, so that a machine that changes its speed changes both; G is the median of the rounds. `capacity_cpu` is
the same ratio for eight callers in a closed loop. Bare is a session with all cores, as ONNX Runtime has it; the ratios
over the service's own way of driving it, patches side by side, are told beside them (`..._of_lanes`).

Takes about rounds x 4 x seconds, 4 minutes as it stands.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import NamedTuple

import anyio
import httpx

from app.bench.arrivals import poisson
from app.bench.load import closed_loop, open_loop
from app.bench.samples import Summary, keeping_up, summarise
from app.bench.server import SERVE
from app.bench.target import Target
from tests.benchmarks.loading import MOST, OBJECTIVE_S, entry, options, real_tiles, report, service, warm

BARE = (sys.executable, "-m", "tests.benchmarks.bare")
WITHOUT_SEPARATION = (sys.executable, "-m", "tests.benchmarks.without_separation", *SERVE[3:])
LADDER = (
    0.70,
    0.75,
    0.80,
    0.85,
    0.90,
    0.95,
    1.0,
    1.05,
    1.10,
    1.15,
    1.20,
)  # by chance fewer may come than are asked for
FIRST = LADDER.index(0.95)
BAR = 0.95
BY_PLAIN = "of bare ONNX Runtime, without post-processing"
BY_LANES = "of bare ONNX Runtime with patches side by side, without post-processing"
CALLERS = 8
WAITING_ROOM = "128"  # 2 s of work at 50 tiles/s: with fewer places refusals would come long before the objective
BARE_S = 6.0
TO_BEGIN_S = 1.0


class Rates(NamedTuple):
    """Of the bare network by both ways; or what the service does by each of them."""

    plain: float
    lanes: float

    def shares(self, rate: float) -> Rates:
        """A rate, by each of these."""
        return Rates(rate / self.plain, rate / self.lanes)


class Arms:
    """The bare network and the service, both up."""

    def __init__(self, bare: str, target: Target, sink: Target, seconds: float) -> None:
        """Nothing measured yet."""
        self._bare, self._target, self._sink, self._seconds = bare, target, sink, seconds
        self._guess = 20.0

    async def bare_rates(self) -> Rates:
        """Patches per second of the bare network while as many tiles are sent somewhere."""

        async def load() -> None:
            await open_loop(self._sink.segment, poisson(self._guess, BARE_S, MOST))

        async with anyio.create_task_group() as group, httpx.AsyncClient(timeout=60, trust_env=False) as http:
            group.start_soon(load)
            told = Rates(**(await http.get(f"{self._bare}/measure", params={"seconds": BARE_S})).json())
        self._guess = told.plain
        return told

    async def at(self, rate: float, seed: int) -> tuple[Summary, float]:
        """The service under Poisson arrivals: its figures, and tiles delivered per second once it has begun to."""
        samples = await open_loop(self._target.segment, poisson(rate, self._seconds, MOST, seed))
        delivered = sum(s.ok and TO_BEGIN_S < s.ended_s <= self._seconds for s in samples)
        own = summarise(samples, self._seconds, OBJECTIVE_S, keeping_up(samples, self._seconds))
        return own, delivered / (self._seconds - TO_BEGIN_S)

    async def capacity(self) -> float:
        """What the service serves per second when eight callers always want something."""
        samples = await closed_loop(self._target.segment, CALLERS, self._seconds)
        return sum(s.ok for s in samples) / max(s.ended_s for s in samples)

    async def borne(self, share: float, seed: int) -> Rates | None:
        """What the service delivers, by the bare rates, when a share of the plain one is asked for; None if it is too
        much.
        """
        bare = await self.bare_rates()
        own, delivered = await self.at(share * bare.plain, seed)
        good = own.sent == own.ok and own.p99_ms <= 1000 * OBJECTIVE_S
        print(
            f"bare {bare.plain:.1f}/s, in lanes {bare.lanes:.1f}/s, asked for {share:.0%} of the first: "
            f"p50 {own.p50_ms:.0f}, p99 {own.p99_ms:.0f} ms, {own.refused} refused, {own.failed} failed, "
            f"{delivered:.1f}/s delivered: {'borne' if good else 'too much'}",
            flush=True,
        )
        return bare.shares(delivered) if good else None


async def highest(arms: Arms, round_: int) -> Rates:
    """The most that is delivered at a rate that is borne, by steps of 5 % around 95 %; 0 if even the lowest is not."""
    best = await arms.borne(LADDER[FIRST], round_)
    if best is None:
        for share in reversed(LADDER[:FIRST]):
            if (found := await arms.borne(share, round_)) is not None:
                return found
        return Rates(0.0, 0.0)
    for share in LADDER[FIRST + 1 :]:
        if (found := await arms.borne(share, round_)) is None:
            break
        best = max(best, found)
    return best


async def measure(bare: str, address: str, tiles: Sequence[bytes], seconds: float, rounds: int) -> None:
    """All rounds; prints and merges the figures."""
    async with Target(address, tiles) as target, Target(bare, tiles) as sink:
        await warm(target)
        arms = Arms(bare, target, sink, seconds)
        ratios, found = [], []
        for round_ in range(rounds):
            before, able, after = await arms.bare_rates(), await arms.capacity(), await arms.bare_rates()
            ratios.append(Rates(*(sum(pair) / 2 for pair in zip(before, after, strict=True))).shares(able))
            found.append(await highest(arms, round_))
            print(f"round {round_}: {found[-1].plain:.0%}; closed loop {ratios[-1].plain:.0%}", flush=True)
    goodput, capacity = (Rates(*map(statistics.median, zip(*one, strict=True))) for one in (found, ratios))
    report(
        [
            entry("goodput_cpu", goodput.plain, BY_PLAIN, BAR, goodput.plain >= BAR),
            entry("goodput_cpu_of_lanes", goodput.lanes, BY_LANES, None, None),
            entry("capacity_cpu", capacity.plain, f"{BY_PLAIN}, closed loop", None, None),
            entry("capacity_cpu_of_lanes", capacity.lanes, f"{BY_LANES}, closed loop", None, None),
        ]
    )


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 20.0, rounds=3)
    tiles = real_tiles()
    patient = {"waiting_room": WAITING_ROOM, "longest_wait_s": f"{OBJECTIVE_S:g}", "postprocess_workers": "0"}
    with service(BARE) as bare, service(WITHOUT_SEPARATION, **patient) as server:
        anyio.run(measure, bare.address, server.address, tiles, own.seconds, own.rounds)


if __name__ == "__main__":
    main()
