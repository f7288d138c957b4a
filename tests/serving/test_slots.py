"""A few separate at a time; those at a screen first, but not for ever."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from app.serving.slots import IN_A_ROW, Slots
from app.serving.work import WorkClass
from tests.serving.benches import wait_for

INTERACTIVE, BULK = WorkClass


def served(slots: Slots, order: list[WorkClass]) -> list[WorkClass]:
    """In which order those get a slot who come in `order` while all slots are taken."""
    ran: list[WorkClass] = []

    def work(one: WorkClass) -> None:
        with slots.slot(one):
            ran.append(one)

    threads = [threading.Thread(target=work, args=(one,)) for one in order]
    with ExitStack() as taken:
        for _ in range(slots.count):
            taken.enter_context(slots.slot(INTERACTIVE))
        for i, thread in enumerate(threads):
            thread.start()
            wait_for(lambda i=i: sum(map(len, slots._waiting.values())) == i + 1)
    for thread in threads:
        thread.join()
    return ran


def test_those_at_a_screen_come_first():
    assert served(Slots(1), [BULK, BULK, INTERACTIVE]) == [INTERACTIVE, BULK, BULK]


def test_bulk_has_its_turn_among_many():
    order = [BULK] + [INTERACTIVE] * (IN_A_ROW + 2)
    assert served(Slots(1), order).index(BULK) == IN_A_ROW


def test_a_slot_comes_back_even_after_a_fault():
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError), slots.slot(BULK):
        raise ZeroDivisionError
    with slots.slot(BULK):
        assert slots.in_use == 1
    assert slots.in_use == 0
