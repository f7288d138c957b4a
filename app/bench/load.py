"""How is a service put under load? Open loop: at times drawn beforehand. Closed loop: so many callers, each again
as soon as it is answered, which finds what the service can do at most."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import anyio
import numpy as np
from numpy.typing import NDArray

from app.bench.samples import NOT_SENT, Answer, Sample

Ask = Callable[[int], Awaitable[Answer]]
Told = Callable[[Sample], None]
MOST_OPEN = 512  # requests of one open loop; beyond it a sender would measure itself


def _nobody(sample: Sample) -> None:
    """Nobody watches."""


async def open_loop(
    ask: Ask,
    times: NDArray[np.float64] | Sequence[float],
    told: Told = _nobody,
    most_open: int = MOST_OPEN,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Sample]:
    """Send at given times, whatever becomes of earlier requests, and wait for every answer.

    Args:
        ask: sends request number n and returns its answer.
        times: (N,) seconds from now, rising.
        told: each sample as it is there.
        most_open: a request that would be one more than so many is not sent, and counts as failed.
        clock: monotonic seconds.

    Returns:
        N samples in the order in which they ended.
    """
    samples: list[Sample] = []
    began, now_open = clock(), 0

    def keep(sample: Sample) -> None:
        samples.append(sample)
        told(sample)

    async def one(number: int, intended: float) -> None:
        nonlocal now_open
        sent = clock() - began
        try:
            answer = await ask(number)
        finally:
            now_open -= 1
        keep(Sample(intended, sent, clock() - began, answer))

    async with anyio.create_task_group() as group:
        for number, intended in enumerate(float(at) for at in times):
            await anyio.sleep(max(0.0, began + intended - clock()))
            if now_open >= most_open:
                keep(Sample(intended, intended, intended, Answer(NOT_SENT)))
                continue
            now_open += 1
            group.start_soon(one, number, intended)
    return samples


async def closed_loop(
    ask: Ask,
    callers: int,
    seconds: float,
    told: Told = _nobody,
    most: int = 1_000_000,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Sample]:
    """Let callers ask again and again, until time is up or so many requests are sent.

    Args:
        ask: sends request number n and returns its answer.
        callers: requests that are open at any time.
        seconds: after which no request begins.
        told: each sample as it is there.
        most: requests in all.
        clock: monotonic seconds.

    Returns:
        Samples in the order in which they ended.
    """
    samples: list[Sample] = []
    began, numbers = clock(), count()

    async def caller() -> None:
        while (sent := clock() - began) < seconds and (number := next(numbers)) < most:
            answer = await ask(number)
            samples.append(Sample(sent, sent, clock() - began, answer))
            told(samples[-1])

    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(caller)
    return samples
