"""How long does one tile take, alone and behind a bulk backlog that is held at the queue's limit?

    python -m tests.benchmarks.bench_latency [--seconds 60] [--rounds 2]

* overhead: request minus inference minus separation (by the Server-Timing of each answer), 256 tile, JPEG, 1/s, at
  even times, so that no request waits for another, and from a plain client: httpx itself takes 1.3 ms more
* viewer: 2 requests per second, alone and under the backlog in turn (A-B-A-B); the bar is what it takes alone, plus
  one slice of bulk work, plus 20 ms
* event loop: how late it turns, while both loads are on

Takes (1 + 2 x rounds) x seconds, 5 minutes as it stands.
"""

from __future__ import annotations

import time
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import anyio

from app.bench.arrivals import poisson
from app.bench.load import open_loop
from app.bench.samples import Sample, percentile_ms
from app.bench.target import Target, server_timing
from app.serving.rules import CPU_SLICE_S
from tests.benchmarks.bulk import IN_A_BATCH, Backlog
from tests.benchmarks.loading import (
    MOST,
    api_keys,
    counter,
    entry,
    histogram_percentile,
    options,
    real_tiles,
    report,
    service,
    warm,
)

VIEWER_PER_S = 2.0
QUEUE_COST = 1024
BULK_SHARE = 0.7
ALLOWED_MS = 20.0
LAG = "nuclei_event_loop_lag_seconds"
TENANTS = ("viewer", "bulk1", "bulk2")


async def viewing(target: Target, rate: float, seconds: float, seed: int) -> list[Sample]:
    """Someone who looks around."""
    return await open_loop(target.segment, poisson(rate, seconds, MOST, seed))


def lone_overheads_s(address: str, tiles: list[bytes], key: str, requests: int) -> list[float]:
    """What is neither inference nor separation in each of so many requests, one every second."""
    found, headers = [], {"Content-Type": "image/jpeg", "Authorization": f"Bearer {key}"}
    with closing(HTTPConnection(urlsplit(address).netloc, timeout=60)) as connection:
        for number in range(requests):
            time.sleep(1.0)
            began = time.perf_counter()
            connection.request("POST", "/v1/segment?mpp=0.5", tiles[number % len(tiles)], headers)
            response = connection.getresponse()
            response.read()
            seconds = time.perf_counter() - began
            stages = server_timing(response.headers["Server-Timing"])
            found.append(seconds - (stages["infer"] + stages["postprocess"]) / 1000)
    return found


async def measure(address: str, tiles: list[bytes], seconds: float, rounds: int) -> None:
    """All arms; prints and merges the figures."""
    viewer, *bulk = (Target(address, tiles, tenant) for tenant in TENANTS)
    alone: list[Sample] = []
    behind: list[Sample] = []
    callers = round(QUEUE_COST * BULK_SHARE / IN_A_BATCH / len(bulk)) + 2  # a few more than find room
    async with viewer, bulk[0], bulk[1]:
        await warm(viewer)
        overhead = await anyio.to_thread.run_sync(lone_overheads_s, address, tiles, TENANTS[0], round(seconds))
        lags = []
        for round_ in range(rounds):
            alone += await viewing(viewer, VIEWER_PER_S, seconds, 1 + round_)
            backlog = Backlog(bulk * callers)
            async with backlog.held():
                before = await viewer.metrics()
                behind += await viewing(viewer, VIEWER_PER_S, seconds, 101 + round_)
                after = await viewer.metrics()
            lags.append(1000 * histogram_percentile(before, after, LAG, 99))
            busy = counter(after, "nuclei_device_busy_seconds_total") - counter(
                before, "nuclei_device_busy_seconds_total"
            )
            print(f"round {round_}: device busy {busy / seconds:.0%}, {backlog.refused} batches found the queue full")
    tell(overhead, alone, behind, max(lags))


def tell(overhead: list[float], alone: list[Sample], behind: list[Sample], lag_ms: float) -> None:
    """Print and merge."""
    p50, p99 = percentile_ms(overhead, 50), percentile_ms(overhead, 99)
    own, under = (percentile_ms([s.latency_s for s in samples if s.ok], 99) for samples in (alone, behind))
    median = percentile_ms([s.latency_s for s in behind if s.ok], 50)
    refused = sum(not s.ok for s in alone + behind)
    bar = own + 1000 * CPU_SLICE_S + ALLOWED_MS
    print(
        f"viewer alone p99 {own:.0f} ms; behind the backlog p50 {median:.0f}, p99 {under:.0f} ms; {refused} not served"
    )
    report(
        [
            entry("overhead_p50_ms", p50, "ms", 5.0, p50 <= 5),
            entry("overhead_p99_ms", p99, "ms", 15.0, p99 <= 15),
            entry("viewer_p99_alone_ms", own, "ms", None, None),
            entry("viewer_p99_under_bulk_ms", under, "ms", round(bar, 1), under <= bar and not refused),
            entry("loop_lag_p99_ms", lag_ms, "ms", 5.0, lag_ms <= 5),
        ]
    )


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 60.0, rounds=2)
    tiles = real_tiles()
    with service(api_keys=api_keys(*TENANTS), max_queue_cost=str(QUEUE_COST)) as server:
        anyio.run(measure, server.address, tiles, own.seconds, own.rounds)


if __name__ == "__main__":
    main()
