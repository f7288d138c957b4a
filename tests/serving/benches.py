"""A runner with a small true engine, whose memory, patience and health a test can take away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from app.nuclei.types import HoverMaps, UInt8
from app.nuclei.views import VIEWS
from app.serving.costs import CostModel
from app.serving.desk import Job
from app.serving.device import DeviceEngine
from app.serving.runner import Runner
from app.serving.tray import Ticket, Tray
from app.serving.work import Bucket, WorkClass

PATIENCE_S = 30
SIDE = 8
BUCKET = Bucket("grey@1/fast", 1, SIDE)


class Grey:
    """How bright each pixel is, as probability of nucleus."""

    provider = "GreyExecutionProvider"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.ran: list[int] = []
        self.fits = 1000
        self.says: str | None = None
        self.poison: int | None = None
        self.go, self.begun, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.go.set()
        self.shrunk = 0

    def predict(self, patches: UInt8) -> HoverMaps:
        self.sizes.append(len(patches))
        self.ran += patches[:, 0, 0, 0].tolist()
        self.begun.set()
        while not self.go.wait(0.005):
            if self.ended.is_set():
                raise RuntimeError("Exiting due to terminate flag being set to true.")
        if self.says:
            raise RuntimeError(self.says)
        if len(patches) > self.fits:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 7")
        if self.poison is not None and (patches == self.poison).any():
            raise ValueError("this patch is poison")
        grey = patches.mean(-1, dtype=np.float32) / 255
        return HoverMaps(grey, np.stack([grey, -grey], -1), np.stack([1 - grey, grey], -1))

    def terminate(self) -> None:
        self.ended.set()

    def resume(self) -> None:
        self.ended.clear()

    def shrink(self) -> None:
        self.shrunk += 1
        if self.fits < 1000:
            raise RuntimeError("Failed to allocate memory")


class Lorry(Grey):
    """The same on a device to which patches are brought first; `copies` can be made to fail."""

    boards = stages = True

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[list[int]] = []
        self.copies = True

    def stage(self, patches: UInt8, views: object) -> UInt8:
        self.copied.append(patches[:, 0, 0, 0].tolist())
        if not self.copies:
            raise RuntimeError("Failed to allocate memory for a copy")
        return patches

    def finish(self, staged: UInt8) -> HoverMaps:
        return self.predict(staged)


class Bench:
    """A runner that is at work, and requests for it."""

    def __init__(self, most: int = 64, grey: Grey | None = None, **options: object) -> None:
        self.grey, self.opened = grey or Grey(), 0
        self.elsewhere: Grey | None = None  # what is opened in its place once it is gone
        self.runner = Runner(**options)  # type: ignore[arg-type]
        self.engine = DeviceEngine(self._open, self.runner)
        self.runner.calibrate(BUCKET, CostModel(0.001, 0.001, most))
        self.runner.start()

    def _open(self) -> Grey:
        self.opened += 1
        if self.elsewhere is not None and self.opened > 1:
            return self.elsewhere
        return self.grey

    def ticket(self, tenant: str = "t", work_class: WorkClass = WorkClass.INTERACTIVE, within_s: float = 1e6) -> Ticket:
        return Ticket(tenant, work_class, self.runner.clock() + within_s)

    def submit(self, *levels: int, ticket: Ticket | None = None) -> Tray:
        """Patches of one level each."""
        patches = [np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels]
        return self.runner.submit(ticket or self.ticket(), Job(self.engine, VIEWS[:1], BUCKET, 1.0), patches)

    @contextmanager
    def held(self, work_class: WorkClass = WorkClass.INTERACTIVE) -> Iterator[None]:
        """While inside, the device is busy with one patch of another request."""
        self.grey.go.clear()
        self.grey.begun.clear()
        self.first = self.submit(1, ticket=self.ticket("held", work_class))
        assert self.grey.begun.wait(PATIENCE_S)
        try:
            yield
        finally:
            self.grey.go.set()


def levels(tray: Tray) -> list[int]:
    """The levels of the patches that a tray's maps are of."""
    return [round(float(maps.np_prob[0, 0]) * 255) for maps in tray.wait()]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
