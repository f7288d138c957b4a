"""How do several patches use all cores best? Side by side, one core each.

Layers of a small network are too short to be divided among cores: each waits for the slowest at its end, and for any
core that another program took for a moment. Patches in lanes of their own wait for each other once, at the end.
`python -m tests.benchmarks.bench_lite` compares both.

Lanes never pause, so they are polite: on Linux whatever else the process does in short pieces, its event loop first of
all, gets a core before them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from app.nuclei.types import HoverMaps, UInt8, combined

POLITENESS = 5
"""Steps of niceness: a third of the share of a busy core that the others have."""


@dataclass(frozen=True)
class Lanes:
    """Threads that each run one patch at a time.

    Attributes:
        width: how many patches run at once, 2 or more.
        run: maps of one patch, (1, P, P, 3); called from several threads, each call uses one core.
        threads: `width` of them.
    """

    width: int
    run: Callable[[UInt8], HoverMaps]
    threads: ThreadPoolExecutor

    @classmethod
    def open(cls, width: int, run: Callable[[UInt8], HoverMaps]) -> Lanes:
        """Lanes with threads of their own, which end with them."""
        return cls(width, run, ThreadPoolExecutor(width, thread_name_prefix="karyon-lane", initializer=be_polite))

    def share(self, count: int) -> int:
        """How many of so many patches should run side by side: those that leave no more than half of the lanes idle."""
        rest = count % self.width
        return count if 2 * rest > self.width else count - rest

    def predict(self, patches: UInt8) -> HoverMaps:
        """Maps (N, P, P) of patches (N, P, P, 3), N at least 1.

        Raises:
            Exception: what `run` raised for the first patch that failed, once no other is running.
        """
        each = [self.threads.submit(self.run, patches[i : i + 1]) for i in range(len(patches))]
        wait(each)
        return joined([future.result() for future in each])


def be_polite() -> None:
    """Let other threads go before this one, where threads have priorities of their own."""
    if sys.platform == "linux":
        this = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, this, os.getpriority(os.PRIO_PROCESS, this) + POLITENESS)


def joined(parts: list[HoverMaps]) -> HoverMaps:
    """Maps (N, P, P) of batches of patches, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return combined(parts, np.concatenate)
