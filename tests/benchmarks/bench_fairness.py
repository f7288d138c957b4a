"""Do callers of equal right get equal shares of a full device, also if one of them pushes harder?

    python -m tests.benchmarks.bench_fairness [--seconds 20]

Four callers with a key each, in a closed loop: first six requests open by each, then 3, 3, 3 and 15, in turn
(A-B-A-B). Jain's index of tiles served per caller; 1 is equal, 0.25 is one who has everything. Takes 4 x seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import anyio

from app.bench.load import closed_loop
from app.bench.samples import Sample, jain
from app.bench.target import Target
from tests.benchmarks.loading import api_keys, entry, options, real_tiles, report, service, warm

TENANTS = ("first", "second", "third", "fourth")
EVEN, UNEVEN = (6, 6, 6, 6), (3, 3, 3, 15)
ROUNDS = 2
TO_SETTLE_S = 2.0
BAR = 0.98


async def shares(targets: Sequence[Target], callers: Sequence[int], seconds: float) -> list[int]:
    """Tiles served per caller while all push, without the first two seconds."""
    found: list[list[Sample]] = [[] for _ in targets]

    async def push(i: int) -> None:
        found[i] = await closed_loop(targets[i].segment, callers[i], seconds)

    async with anyio.create_task_group() as group:
        for i in range(len(targets)):
            group.start_soon(push, i)
    return [sum(s.ok and TO_SETTLE_S <= s.ended_s <= seconds for s in samples) for samples in found]


async def measure(address: str, tiles: list[bytes], seconds: float) -> None:
    """Both arms in turn; prints and merges the figures."""
    even, uneven = [0] * len(TENANTS), [0] * len(TENANTS)
    async with AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(Target(address, tiles, name)) for name in TENANTS]
        await warm(targets[0])
        for _ in range(ROUNDS):
            for total, callers in ((even, EVEN), (uneven, UNEVEN)):
                for i, share in enumerate(await shares(targets, callers, seconds)):
                    total[i] += share
    print(f"served with {EVEN} requests open: {even}; with {UNEVEN}: {uneven}")
    report(
        [
            entry("jain_index", jain(even), "of 4 equal callers", BAR, jain(even) >= BAR),
            entry("jain_index_uneven", jain(uneven), "one pushes five times as hard", BAR, jain(uneven) >= BAR),
        ]
    )


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 20.0)
    tiles = real_tiles()
    with service(api_keys=api_keys(*TENANTS)) as server:
        anyio.run(measure, server.address, tiles, own.seconds)


if __name__ == "__main__":
    main()
