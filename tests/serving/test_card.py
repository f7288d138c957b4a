"""The card's memory is asked of NVIDIA's library, and nobody minds where there is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.serving.card import Card, CardMemory


class Library:
    """Two cards with a known use of memory; NVIDIA's names."""

    def __init__(self, broken=False):
        self.broken, self.asked = broken, 0

    def nvmlInit(self):  # noqa: N802
        self.asked += 1
        if self.broken:
            raise OSError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return {"GPU-b": 1}[uuid]

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(used=100 + handle, free=7, total=1000)


@pytest.mark.parametrize(("seen", "used"), [("", 100), ("1,0", 101), ("GPU-b", 101)])
def test_the_memory_is_that_of_the_first_card_that_the_process_may_see(monkeypatch, seen, used):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert Card(Library()).memory() == CardMemory(used, 1000)


def test_without_a_driver_there_is_no_answer_and_no_second_question(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    library = Library(broken=True)
    card = Card(library)
    assert [card.memory(), card.memory(), library.asked] == [None, None, 1]
