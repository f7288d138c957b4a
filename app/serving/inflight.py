"""What is on the device or staged for it, and does anybody still want it?"""

from __future__ import annotations

from collections.abc import Iterator

from app.serving.work import Batch, Work, WorkClass


class InFlight:
    """Batches that were picked and are not done; iterating gives them, oldest first."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._batches: dict[int, Batch] = {}
        self._items: dict[int, Work] = {}
        self._unwanted: set[int] = set()

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches.values())

    def __len__(self) -> int:
        return len(self._batches)

    def __contains__(self, item_id: int) -> bool:
        return item_id in self._items

    def add(self, batch: Batch) -> None:
        """A batch was picked."""
        self._batches[batch.serial] = batch
        self._items.update((item.id, item) for item in batch.items)

    def land(self, batch: Batch) -> tuple[Work, ...]:
        """A batch is here no longer; returns its unwanted items.

        Raises:
            KeyError: it was not here.
        """
        del self._batches[batch.serial]
        unwanted = tuple(item for item in batch.items if item.id in self._unwanted)
        for item in batch.items:
            del self._items[item.id]
        self._unwanted.difference_update(item.id for item in unwanted)
        return unwanted

    def cancel(self, item_id: int) -> Work | None:
        """Nobody wants this item any more; None if it is not here, or was unwanted already."""
        if item_id not in self._items or item_id in self._unwanted:
            return None
        self._unwanted.add(item_id)
        return self._items[item_id]

    def is_unwanted(self, batch: Batch) -> bool:
        """Whether every item of a batch here was cancelled."""
        return all(item.id in self._unwanted for item in batch.items)

    def count(self, work_class: WorkClass) -> int:
        """Items of a class."""
        return sum(item.work_class is work_class for item in self._items.values())
