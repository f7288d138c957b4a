"""Who waits for the device, and how does an answer get back to them?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from threading import Event

from app.nuclei.types import HoverMaps
from app.serving.work import WorkClass

_numbers = count(1)


def next_request() -> int:
    """A number that no other request of this process has."""
    return next(_numbers)


class Tray:
    """What one call waits for: the maps of its patches, in their order, or the reason why there are none.

    Filled under the runner's lock, read by the one thread that waits.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        """An empty tray for the patches with these ids."""
        self.ids = tuple(ids)
        self._maps: dict[int, HoverMaps] = {}
        self._error: Exception | None = None
        self._failed = False
        self._done = Event()
        self.began: float | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing that comes now is of use."""
        return self._done.is_set()

    @property
    def filled(self) -> bool:
        """Whether all maps are there."""
        return self.settled and not self._failed

    def put(self, item_id: int, maps: HoverMaps) -> None:
        """The maps (P, P) of one patch."""
        self._maps[item_id] = maps
        if len(self._maps) == len(self.ids):
            self._done.set()

    def fail(self, error: Exception) -> None:
        """There will be no maps; the first reason counts."""
        if not self.settled:
            self._error, self._failed = error, True
            self._done.set()

    def wait(self) -> list[HoverMaps]:
        """Maps of all patches, once they are there. Maps or reason can be taken once: the tray keeps neither.

        Raises:
            Exception: the reason why there are none.
        """
        self._done.wait()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it knows this frame and, through its callers', the image: a circle would keep them all
        maps, self._maps = self._maps, {}  # nobody else keeps them
        return [maps[one] for one in self.ids]


@dataclass(eq=False)
class Ticket:
    """One request's right to the device.

    Attributes:
        tenant: whom it is for.
        work_class: interactive or bulk.
        deadline: on the runner's clock; after it nobody wants the answer.
        request: tells requests apart, which take turns within their tenant; the images of one request share it.
        cancelled: nobody wants it now.
        tray: what its thread waits for at the moment.
        waited_s: seconds that its patches were queued in all.
    """

    tenant: str
    work_class: WorkClass
    deadline: float
    request: int = field(default_factory=next_request)
    cancelled: bool = False
    tray: Tray | None = None
    waited_s: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether the device gave all the maps that were asked for lately."""
        return self.tray is not None and self.tray.filled
