"""What does a service hold after a long time of everything that callers do: tiles, batches, hanging up, bad input?"""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio
import httpx
import numpy as np
from PIL import Image

from app.bench.load import closed_loop
from app.bench.processes import Holdings, holdings
from app.bench.server import Server
from app.bench.target import Target

AT_ONCE = 24  # as many as the service holds: every thread that it will ever start is there before anything is counted
HOLDS = {"waiting_room": str(AT_ONCE), "longest_wait_s": "60"}
"""Settings of the service, so that it holds as many whatever this machine does in a second."""
SHARE = 0.4  # of what the service can do
SPARE_FILES = 8  # memory of earlier images that workers keep mapped, a descriptor each: up to four a worker
BATCH = 8
QUIET_S = 12.0  # idle threads of the framework leave after 10 s
RETURN_S = 90.0


@dataclass
class Soaked:
    """What was seen.

    Attributes:
        before, after: what the service held, idle, after the first load and at the end.
        pss: (seconds, bytes) while the load went on.
        statuses: how often each HTTP status came, of all that was sent.
        shared: paths in /dev/shm that the service mapped at any time.
    """

    before: Holdings
    after: Holdings
    pss: list[tuple[float, int]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    shared: set[str] = field(default_factory=set)


def bad_bodies(tiles: Sequence[bytes]) -> list[bytes]:
    """What is sent by mistake or on purpose: nothing, text, half a tile, noise behind a magic number, a huge header."""
    draw = random.Random(5)
    return [
        b"",
        b"not an image" * 100,
        tiles[0][: len(tiles[0]) // 2],
        b"\x89PNG\r\n\x1a\n" + draw.randbytes(5000),
        tiles[0][:200] + draw.randbytes(5000),
        huge_png(),
    ]


def huge_png() -> bytes:
    """A small file that claims to be 100,000 pixels wide and high."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "png")
    data = bytearray(file.getvalue())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    return bytes(data)


async def soak(server: Server, tiles: Sequence[bytes], seconds: float, every_s: float) -> Soaked:
    """Put mixed load on a service, and look at what it holds.

    Args:
        server: whose process is looked at.
        tiles: good ones.
        seconds: of load.
        every_s: between looks.
    """
    rate = await first_load(server.address, tiles)
    await anyio.sleep(QUIET_S)
    before = await at_rest(server, None)
    found = Soaked(before, before)
    began = time.monotonic()
    async with (
        Target(server.address, tiles, timeout_s=120) as target,
        httpx.AsyncClient(base_url=server.address, timeout=120, trust_env=False) as http,
    ):
        draw, bad = random.Random(1), bad_bodies(tiles)

        async def good(number: int) -> None:
            found.statuses[(await target.segment(number)).status] += 1

        async def batch(number: int) -> None:
            found.statuses[(await target.batch(number, BATCH))[0]] += 1

        async def hang_up(number: int) -> None:
            with anyio.move_on_after(draw.uniform(0.0, 0.5)):
                await target.segment(number)

        async def wrong(number: int) -> None:
            answer = await http.post(
                "/v1/segment", content=bad[number % len(bad)], headers={"Content-Type": "image/png"}
            )
            found.statuses[answer.status_code] += 1

        async def look(number: int) -> None:
            now = await anyio.to_thread.run_sync(holdings, server.process.pid)
            found.pss.append((time.monotonic() - began, now.pss_bytes))
            found.shared |= now.shared_memory

        paces = (
            (good, SHARE * rate),
            (batch, SHARE * rate / 4 / BATCH),
            (hang_up, 0.5),
            (wrong, 1.0),
            (look, 1 / every_s),
        )
        async with anyio.create_task_group() as group:
            for act, per_s in paces:
                group.start_soon(again_and_again, act, per_s, began + seconds)
    await anyio.sleep(QUIET_S)
    found.after = await at_rest(server, before)
    return found


async def first_load(address: str, tiles: Sequence[bytes]) -> float:
    """As much at once as the service holds, so that every thread is there; tiles that it serves per second."""
    async with Target(address, tiles, timeout_s=120) as target:
        await target.batch(0, 2 * AT_ONCE)
        began = time.monotonic()
        samples = await closed_loop(target.segment, AT_ONCE, 5.0)
        return sum(one.ok for one in samples) / (time.monotonic() - began)


async def again_and_again(act: Callable[[int], Awaitable[None]], per_s: float, end: float) -> None:
    """Do something at random times, whatever becomes of earlier ones, until an hour on the clock."""
    draw, number = random.Random(act.__name__), 0
    async with anyio.create_task_group() as group:
        while (pause := draw.expovariate(per_s)) + time.monotonic() < end:
            await anyio.sleep(pause)
            group.start_soon(act, number)
            number += 1


async def at_rest(server: Server, known: Holdings | None) -> Holdings:
    """What an idle service holds; given time to come back to what is known."""
    end = time.monotonic() + RETURN_S
    while True:
        now = holdings(server.process.pid)
        if known is None or time.monotonic() > end or (now.files <= known.files and now.threads <= known.threads):
            return now
        await anyio.sleep(1.0)


def leaked(before: Holdings, after: Holdings) -> dict[str, int]:
    """Threads, files and processes that a service holds too much of, idle, after the load."""
    spare = {"threads": 0, "files": SPARE_FILES, "processes": 0}
    return {name: max(0, getattr(after, name) - getattr(before, name) - more) for name, more in spare.items()}


def slope_mb_h(pss: Sequence[tuple[float, int]]) -> float:
    """Growth in MB per hour: the median of the slopes between all pairs, which no single peak moves."""
    times, sizes = np.array([t for t, _ in pss]), np.array([size / 1e6 for _, size in pss])
    i, j = np.triu_indices(len(pss), 1)
    return float(np.median((sizes[j] - sizes[i]) / (times[j] - times[i]))) * 3600 if len(pss) > 1 else float("nan")
