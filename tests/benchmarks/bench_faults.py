"""What is lost when callers hang up, workers die and the service is told to stop, all under load?

    python -m tests.benchmarks.bench_faults [--rounds 5]

* SIGTERM at half of what the service can do, each request on a connection of its own: none may fail that was sent
  while the drain lasts, and the process must end with status 0.
* Callers whose sockets are killed while they wait: of their patches none runs but the one that is running. The
  service's own counters say so: patches that ran = patches answered + patches that were running or done already.
* Worker processes that are killed (`kill -9`, any of them, twice a second) while four callers always want something:
  no request may fail, and something must have been tried again.

Takes about a minute.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress

import anyio

from app.bench.arrivals import poisson
from app.bench.load import closed_loop, open_loop
from app.bench.samples import NO_ANSWER, Answer, Sample
from app.bench.server import TO_STOP_S, Server
from app.bench.target import Target
from tests.benchmarks.loading import MOST, counter, entry, options, real_tiles, report, service, warm
from tests.workers import workers_of

DRAIN_S = 5.0
BEFORE_S, MARGIN_S = 4.0, 0.5
AT_ONCE, KEPT = 20, 5
HANG_UP_S = 0.3
QUIET_S = 30.0
KILLS, KILL_EVERY_S, CALLERS = 12, 0.5, 4


async def stopping(server: Server, tiles: list[bytes]) -> list[Sample]:
    """Load, and a SIGTERM in the middle of it."""
    async with Target(server.address, tiles, keep_alive=False) as target:
        await warm(target)
        able = len(await closed_loop(target.segment, 4, 5.0)) / 5
        times = poisson(able / 2, BEFORE_S + DRAIN_S - MARGIN_S, MOST)

        async def terminate() -> None:
            await anyio.sleep(BEFORE_S)
            server.process.send_signal(signal.SIGTERM)

        async with anyio.create_task_group() as group:
            group.start_soon(terminate)
            return await open_loop(target.segment, times)


async def hanging_up(address: str, tiles: list[bytes], rounds: int) -> tuple[int, int]:
    """Requests of which most are killed while they wait.

    Returns:
        Patches that ran though nobody waited for them any more when they began, and how many were killed.
    """
    async with Target(address, tiles) as target, Target(address, tiles) as watcher:
        await warm(target)
        before, answered = await watcher.metrics(), 0
        for _ in range(rounds):
            answered += await one_round(target)
        after = await settled(watcher)
    ran = counter(after, "nuclei_batch_tiles_sum") - counter(before, "nuclei_batch_tiles_sum")
    # Those that the service answered, though the caller may have hung up in that moment.
    ok = {"route": "/v1/segment", "outcome": "ok"}
    served = counter(after, "nuclei_requests_total", **ok) - counter(before, "nuclei_requests_total", **ok)
    excused = sum(
        counter(after, "nuclei_cancelled_tiles_total", where=where)
        - counter(before, "nuclei_cancelled_tiles_total", where=where)
        for where in ("running", "postprocess")
    )
    killed = rounds * AT_ONCE - answered
    print(f"{killed} of {rounds * AT_ONCE} callers hung up; {ran:.0f} patches ran, {excused:.0f} had begun before")
    return round(ran - served - excused), killed


async def one_round(target: Target) -> int:
    """Many requests at once, of which all but a few hang up; those that were answered."""
    answers: list[Answer] = []

    async def ask(number: int, patient: bool) -> None:
        with anyio.move_on_after(None if patient else HANG_UP_S):
            answers.append(await target.segment(number))

    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(ask, number, number % (AT_ONCE // KEPT) == 0)
    return sum(answer.status == 200 for answer in answers if answer.status != NO_ANSWER)


async def killing(server: Server, tiles: list[bytes]) -> tuple[list[Sample], int]:
    """Load while workers are killed; and how often one was found dead by the service."""
    async with Target(server.address, tiles) as target, Target(server.address, tiles) as watcher:
        await warm(target)

        async def kill() -> None:
            chance = random.Random(0)
            for _ in range(KILLS):
                await anyio.sleep(KILL_EVERY_S)
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers_of(server.process.pid)), signal.SIGKILL)

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            samples = await closed_loop(target.segment, CALLERS, (KILLS + 2) * KILL_EVERY_S)
        return samples, round(counter(await watcher.metrics(), "nuclei_worker_restarts_total", reason="crash"))


async def settled(watcher: Target) -> str:
    """The counters once nothing is queued or running."""
    with anyio.fail_after(QUIET_S):
        while True:
            now = await watcher.metrics()
            if not any(counter(now, f"nuclei_{name}_tiles") for name in ("queue", "running")):
                return now
            await anyio.sleep(0.2)


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 0.0, rounds=5)
    tiles = real_tiles()
    with service(drain_delay_s=f"{DRAIN_S:g}") as server:
        samples = anyio.run(stopping, server, tiles)
        status = server.process.wait(TO_STOP_S)
    failed = sum(not s.ok for s in samples)
    late = sum(s.ok and s.intended_s > BEFORE_S for s in samples)
    print(f"{len(samples)} requests, {late} served on connections opened after SIGTERM; exit status {status}")
    with service() as server:
        ran, killed = anyio.run(hanging_up, server.address, tiles, own.rounds)
        under_kills, crashes = anyio.run(killing, server, tiles)
    lost = sum(not s.ok for s in under_kills)
    print(f"{KILLS} workers killed, {crashes} of them noticed, during {len(under_kills)} requests")
    report(
        [
            entry("sigterm_failed", failed, "requests", 0, failed == 0 and status == 0 and late > 0),
            entry("killed_ran", ran, f"patches of {killed} callers who hung up", 0, ran <= 0 and killed > 0),
            entry("worker_killed_failed", lost, "requests", 0, lost == 0 and crashes > 0),
        ]
    )


if __name__ == "__main__":
    main()
