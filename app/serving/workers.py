"""Whose turn is it on the few threads that do the work?"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")
Turns = deque[asyncio.Future[None]]


class Workers:
    """Runs work in a fixed number of threads; tenants take turns, within each its requests do, and work that nobody
    awaits any more never starts.

    All methods belong to the event loop; only the work itself runs elsewhere.
    """

    def __init__(self, threads: int, served: Callable[[float], None]) -> None:
        """Threads that wait for work.

        Args:
            threads: pieces of work that run side by side.
            served: told the seconds of each finished piece.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="karyon")
        self._free = threads
        self._served = served
        self._waiting: dict[str, dict[int, Turns]] = {}

    async def run(self, tenant: str, work: Callable[[], T], request: int = 0) -> T:
        """Wait for a turn, run `work` in a thread, return its result or raise its error.

        Cancelling this while it waits takes it out of the queue. Once it runs, the thread is finished in peace and
        its place is given on only then.

        Args:
            tenant: who it is for; tenants with work waiting are served in turn.
            work: is called without arguments.
            request: which of the tenant's requests it belongs to.
        """
        await self._turn(tenant, request)
        began = time.perf_counter()
        job = asyncio.get_running_loop().run_in_executor(self._pool, work)
        job.add_done_callback(lambda done: self._finish(done, began))
        return await asyncio.shield(job)

    def close(self) -> None:
        """Wait for running work, and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _turn(self, tenant: str, request: int) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, {}).setdefault(request, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn came in the same moment: pass it on
                self._pass_on()
            raise

    def _finish(self, done: asyncio.Future[T], began: float) -> None:
        if not done.cancelled() and done.exception() is None:  # asking marks an abandoned error as seen
            self._served(time.perf_counter() - began)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            tenant, requests = _pop_first(self._waiting)
            request, turns = _pop_first(requests)
            turn = turns.popleft()
            if turns:
                requests[request] = turns  # to the back: the others come first
            if requests:
                self._waiting[tenant] = requests
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


def _pop_first(ordered: dict[K, T]) -> tuple[K, T]:
    key = next(iter(ordered))
    return key, ordered.pop(key)
