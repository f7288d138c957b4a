"""How many patches should a batch hold here, and how long does it take? Measured at startup, kept on disk.

Batches of 1, 2, 4, ... (where patches run side by side: of 1, of as many as do, of twice as many, ...) are timed until
two in a row bring nothing, one takes too long, memory refuses or the time is over. On a CPU batching brings little, on
a GPU much, so the limit can be no constant. A GPU takes seconds over the first batch of every size, which is no part of
what batches take. What runs view after view is measured with one view, takes a multiple of it, and gets fewer patches
for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from app.nuclei.views import View
from app.serving.device import DeviceEngine
from app.serving.faults import Fault, fault_of

MOST = 64
GOOD_ENOUGH = 0.95  # of the best rate: the smallest batch that reaches it is the limit
LONGEST_S = 0.25
"""A batch of several patches takes no longer: whoever comes meanwhile waits for its end, and whoever has few requests
open has the next one ready in time to share the batch after it."""
PREPARATION_S = 15.0
"""A device may take so long over new sizes of batches, of one trial; then no larger one is tried."""
FORMAT = 4  # of what is kept, and of the way in which batches run

Key = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Measured:
    """What batches take.

    Attributes:
        a: seconds per patch, positive.
        b: seconds per batch, 0 or more.
        most: patches that a batch should hold.
    """

    a: float
    b: float
    most: int

    def __post_init__(self) -> None:
        if not (0 < self.a < math.inf and 0 <= self.b < math.inf and 1 <= self.most <= MOST):
            raise ValueError(f"no measurement has a={self.a}, b={self.b}, most={self.most}")

    @property
    def rate(self) -> float:
        """Patches per second in batches of the right size."""
        return self.most / (self.a * self.most + self.b)

    def per(self, views: int) -> Measured:
        """What each of several views took that ran together."""
        return Measured(self.a / views, self.b / views, self.most)

    def in_turn(self, views: int) -> Measured:
        """What each of several views takes that run one after another: `most` is halved until all last LONGEST_S."""
        most = self.most
        while views > 1 < most and views * (self.a * most + self.b) > LONGEST_S:
            most //= 2
        return Measured(self.a, self.b, most)


def measure(run: Callable[[int], float], budget_s: float, abreast: int = 1, prepares: bool = False) -> Measured:
    """Find the size of batches and what they take.

    Args:
        run: seconds of a batch of so many patches; called at least once, for one patch.
        budget_s: for all batches after the first, of which each is expected to take as much longer as it is larger.
        abreast: patches that run side by side; smaller batches of several are not tried.
        prepares: whether the device prepares itself for every new size, as a GPU does for seconds: each then runs once
            before its time counts, outside the budget, until that has taken PREPARATION_S.

    Raises:
        Exception: what `run` raised, unless memory refused a batch of several.
    """
    prepared = run(1) if prepares else 0.0
    times, size, last, spent, in_vain = {1: run(1)}, max(2, abreast), 1, 0.0, 0
    if 2 * times[1] <= budget_s:  # the first run also allocates and chooses algorithms
        times[1] = spent = run(1)
    while size <= MOST and in_vain < 2 and spent + times[last] * size / last <= budget_s and prepared < PREPARATION_S:
        try:
            prepared += run(size) if prepares else 0.0
            seconds = run(size)
        except Exception as error:
            if fault_of(error) is not Fault.MEMORY:
                raise
            break
        spent += seconds
        if spent + seconds <= budget_s:  # the better of two: other programs disturb, none helps
            again = run(size)
            spent, seconds = spent + again, min(seconds, again)
        if seconds > LONGEST_S:
            break
        best = max(n / s for n, s in times.items())
        times[size] = seconds
        in_vain = 0 if size / seconds > best else in_vain + 1
        last, size = size, 2 * size
    rates = {n: n / s for n, s in times.items()}
    most = min(n for n, rate in rates.items() if rate >= GOOD_ENOUGH * max(rates.values()))
    return Measured(*line(times), most)


def line(times: dict[int, float]) -> tuple[float, float]:
    """(a, b) of seconds = a * size + b by least squares, both within what makes sense."""
    sizes, seconds = np.array(list(times)), np.array(list(times.values()))
    fastest = float((seconds / sizes).min())
    if len(times) == 1:
        return max(fastest, 1e-6), 0.0
    a = float(np.polyfit(sizes, seconds, 1)[0])
    a = max(min(a, fastest), 0.1 * fastest, 1e-6)
    return a, max(0.0, float((seconds - a * sizes).mean()))


def timed(
    engine: DeviceEngine,
    patch_size: int,
    views: Sequence[View],
    boarded: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[int], float]:
    """Times batches of an engine, averaged over views there (`boarded`) or here; the device's thread runs them."""

    def run(count: int) -> float:
        patches = np.full((count, patch_size, patch_size, 3), 200, np.uint8)
        seconds = 0.0

        def batch() -> None:
            nonlocal seconds
            began = clock()
            try:
                engine.average(patches, views, boarded)
            except Exception as error:
                if fault_of(error) is Fault.MEMORY:
                    with suppress(Exception):  # it needs a run, for which there may be no memory either
                        engine.shrink()
                raise
            seconds = max(clock() - began, 1e-6)

        engine.do(batch)
        return seconds

    return run


def warm(run: Callable[[int], float], most: int) -> None:
    """Run every size once that batches up to `most` are filled up to: a GPU prepares itself anew for each."""
    size = 1
    while size <= most:
        run(size)
        size *= 2


class Shelf:
    """Measurements on disk; what cannot be read, or is of another key, is as if it were not there."""

    def __init__(self, folder: Path | None) -> None:
        """A shelf in a folder, which is made when it is needed; None keeps nothing."""
        self._folder = folder

    def get(self, key: Key) -> Measured | None:
        """What was measured under this key."""
        if self._folder is None:
            return None
        try:
            content = json.loads(self._path(key).read_text())
            if content["key"] != key | {"format": FORMAT}:
                return None
            return Measured(float(content["a"]), float(content["b"]), int(content["most"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None

    def put(self, key: Key, measured: Measured) -> None:
        """Keep a measurement; a disk that does not take it is no reason to stop."""
        if self._folder is None:
            return
        content = json.dumps({"key": key | {"format": FORMAT}} | asdict(measured))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, suffix=".part", delete=False) as file:
                file.write(content)
            os.replace(file.name, self._path(key))
        except OSError:
            return

    def _path(self, key: Key) -> Path:
        assert self._folder is not None
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / f"calibration-{digest[:24]}.json"
