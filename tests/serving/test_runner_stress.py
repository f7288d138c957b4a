"""Whatever many threads ask, cancel and break at once: everyone is answered, with their own patches or a reason."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from app.nuclei.errors import Abandoned, DeadlineExceeded, InferenceFailed
from app.serving.work import WorkClass
from tests.serving.benches import Bench, levels

POISON = 250


@dataclass(frozen=True)
class Request:
    """Patches of some levels, and what is to become of them."""

    levels: list[int]
    fate: str
    work_class: WorkClass

    @classmethod
    def drawn(cls, seed: int) -> Request:
        draw = random.Random(seed)
        wanted = [draw.randrange(2, 240) for _ in range(draw.randint(1, 9))]
        fate = draw.choice(["served", "served", "cancelled", "late", "poisoned"])
        return cls([*wanted, POISON] if fate == "poisoned" else wanted, fate, draw.choice(list(WorkClass)))


def ask(bench: Bench, seed: int) -> str:
    """What becomes of one request."""
    request = Request.drawn(seed)
    ticket = bench.ticket(f"t{seed % 7}", request.work_class, -1.0 if request.fate == "late" else 1e6)
    tray = bench.submit(*request.levels, ticket=ticket)
    if request.fate == "cancelled":
        bench.runner.cancel(ticket)
    try:
        assert levels(tray) == request.levels
    except Abandoned:
        return "cancelled"
    except DeadlineExceeded:
        return "late"
    except InferenceFailed:
        return "poisoned"
    return "cancelled" if request.fate == "cancelled" else "served"  # it may have been faster


@pytest.mark.parametrize("fits", [1000, 3])
def test_everyone_is_answered_and_nothing_is_left(fits):
    bench = Bench(most=16)
    bench.grey.poison, bench.grey.fits = POISON, fits
    with ThreadPoolExecutor(12) as threads:
        fates = list(threads.map(lambda seed: ask(bench, seed), range(400)))
    assert fates == [Request.drawn(seed).fate for seed in range(400)]
    assert not bench.runner.ask(lambda scheduler: scheduler.backlog())
    bench.runner.close()
    assert bench.runner.fault is None
    assert not bench.runner._desk
