"""An open loop keeps its times, whatever the service does; a closed one keeps its callers busy."""

from __future__ import annotations

import anyio
import pytest

from app.bench.load import closed_loop, open_loop
from app.bench.samples import NOT_SENT, Answer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Gate:
    """A service that answers when it is opened."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.most_open = 0
        self.now_open = 0
        self.opened = anyio.Event()

    async def ask(self, number: int) -> Answer:
        self.asked.append(number)
        self.now_open += 1
        self.most_open = max(self.most_open, self.now_open)
        await self.opened.wait()
        self.now_open -= 1
        return Answer(200)


async def test_requests_are_sent_though_none_is_answered():
    gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(open_loop, gate.ask, [0.0, 0.01, 0.02])
        with anyio.fail_after(30):
            while len(gate.asked) < 3:
                await anyio.sleep(0.005)
        gate.opened.set()
    assert gate.asked == [0, 1, 2]


async def test_one_too_many_is_not_sent_and_counts():
    gate, told = Gate(), []

    def tell(sample) -> None:
        told.append(sample)
        gate.opened.set()  # the first that is told is the one that was not sent

    samples = await open_loop(gate.ask, [0.0, 0.0, 0.0], tell, most_open=2)
    assert [s.answer.status for s in samples] == [NOT_SENT, 200, 200]
    assert (gate.asked, told) == ([0, 1], samples)


async def test_a_sender_that_is_late_is_charged_for_it():
    gate = Gate()
    gate.opened.set()
    ticks = iter([0.0, 5.0, 5.0, 5.25])
    (sample,) = await open_loop(gate.ask, [1.0], clock=lambda: next(ticks))
    assert (sample.intended_s, sample.sent_s, sample.latency_s) == (1.0, 5.0, 4.25)


async def test_a_closed_loop_holds_as_many_open_as_it_has_callers():
    gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(closed_loop, gate.ask, 3, 1e6, lambda _: None, 9)
        with anyio.fail_after(30):
            while len(gate.asked) < 3:
                await anyio.sleep(0.005)
        gate.opened.set()
    assert (gate.most_open, sorted(gate.asked)) == (3, list(range(9)))


async def test_a_closed_loop_begins_nothing_once_time_is_up():
    gate = Gate()
    gate.opened.set()
    ticks = iter([0.0, 1.0, 2.0, 99.0])
    samples = await closed_loop(gate.ask, 1, 10, clock=lambda: next(ticks))
    assert [(s.sent_s, s.ended_s) for s in samples] == [(1.0, 2.0)]
