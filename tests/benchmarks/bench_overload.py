"""What does the service do at three times what it can do, and how soon is it well again?

    python -m tests.benchmarks.bench_overload [--seconds 60]

1. alone: 2 requests per second
2. peak: eight callers in a closed loop
3. three times the peak as Poisson arrivals; then, at once, 5 requests per second

Goodput counts answers within 2 s; refusals are 503 or 429. The service is well again at the first request from which
on all are served in at most twice the p99 of phase 1. Takes not quite twice the seconds.
"""

from __future__ import annotations

import anyio
import numpy as np

from app.bench.arrivals import poisson
from app.bench.load import closed_loop, open_loop
from app.bench.samples import Sample, keeping_up, percentile_ms, summarise
from app.bench.target import Target
from tests.benchmarks.loading import MOST, OBJECTIVE_S, entry, options, real_tiles, report, service, warm

ALONE, PEAK, AFTER = 1 / 4, 1 / 3, 1 / 5  # lengths of the other phases, in that of the overload
CALLERS = 8
TIMES = 3.0
PROBES_PER_S = 5.0


def recovery_s(probes: list[Sample], since: float, slow_s: float) -> float:
    """Seconds from `since` to the first probe from which on all are served fast enough; infinite if none is."""
    probes = sorted(probes, key=lambda s: s.intended_s)
    bad = [s.intended_s for s in probes if not s.ok or s.latency_s > slow_s]
    good = [s.intended_s for s in probes if not bad or s.intended_s > bad[-1]]
    return good[0] - since if good else float("inf")


async def most_per_s(target: Target, seconds: float) -> float:
    """Tiles served per second when eight callers always want something."""
    samples = await closed_loop(target.segment, CALLERS, seconds)
    return sum(s.ok for s in samples) / max(s.ended_s for s in samples)


async def measure(address: str, tiles: list[bytes], seconds: float) -> None:
    """All phases; prints and merges the figures."""
    flood: list[Sample] = []
    probes: list[Sample] = []
    async with Target(address, tiles) as target, Target(address, tiles) as prober:
        await warm(target)
        alone = await open_loop(target.segment, poisson(2.0, ALONE * seconds, MOST))
        slow_s = 2 * percentile_ms([s.latency_s for s in alone if s.ok], 99) / 1000
        peak = await most_per_s(target, PEAK * seconds)

        async def overload() -> None:
            flood.extend(await open_loop(target.segment, poisson(TIMES * peak, seconds, MOST, 1)))

        async def probe() -> None:
            times = seconds + np.arange(0, AFTER * seconds, 1 / PROBES_PER_S)
            probes.extend(await open_loop(prober.segment, times))

        async with anyio.create_task_group() as group:
            group.start_soon(overload)
            group.start_soon(probe)
    own = summarise(flood, seconds, OBJECTIVE_S, keeping_up(flood, seconds))
    refusals = [s.latency_s for s in flood if s.refused]
    from_sending = [s.ended_s - s.sent_s for s in flood if s.refused]
    print(
        f"peak {peak:.1f}/s; offered {own.offered_per_s:.1f}/s: good {own.goodput_per_s:.1f}/s, "
        f"{own.refused} refused, {own.failed} failed; the sender was {own.send_lag_p99_ms:.0f} ms late (p99); "
        f"refusals took from sending p50 {percentile_ms(from_sending, 50):.1f}, "
        f"p99 {percentile_ms(from_sending, 99):.1f} ms"
    )
    kept, refused = own.goodput_per_s / peak, percentile_ms(refusals, 99)
    well = recovery_s(probes, seconds, slow_s)
    report(
        [
            entry("overload_goodput", kept, "of peak", 0.9, kept >= 0.9),
            entry("overload_refusal_p99_ms", refused, "ms", 50.0, refused < 50 if refusals else None),
            entry("overload_recovery_s", well, "s", 2.0, well < 2),
            entry("overload_failed", own.failed, "requests neither served nor refused", 0, own.failed == 0),
        ]
    )


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 60.0)
    tiles = real_tiles()
    with service() as server:
        anyio.run(measure, server.address, tiles, own.seconds)


if __name__ == "__main__":
    main()
