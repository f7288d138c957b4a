"""How is a bulk backlog held at the queue's limit? Callers send batches again and again, and wait where refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from app.bench.target import Target

IN_A_BATCH = 64
AGAIN_S = 5.0  # a client that asks again at once would measure what refusing megabytes costs
TO_FILL_S = 120.0


class Backlog:
    """Callers that keep a service's queue full.

    Attributes:
        served: bulk tiles that were answered in batches that ended.
        refused: batches that found the queue full.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        """Not sent yet.

        Args:
            targets: callers; together they must want more than the queue takes.
        """
        self._targets = targets
        self._full = anyio.Event()
        self.served = self.refused = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """While inside, the queue is full of bulk work; at the end the callers hang up."""
        async with anyio.create_task_group() as group:
            for target in self._targets:
                group.start_soon(self._call, target)
            with anyio.fail_after(TO_FILL_S):
                await self._full.wait()
            yield
            group.cancel_scope.cancel()

    async def _call(self, target: Target) -> None:
        number = 0
        while True:
            status, served = await target.batch(number, IN_A_BATCH)
            number += IN_A_BATCH
            self.served += served
            if status != 200:
                self.refused += 1
                self._full.set()
                await anyio.sleep(AGAIN_S)
