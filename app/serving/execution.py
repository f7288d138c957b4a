"""How is a batch run so that a fault costs as few patches as it can?

Memory that runs out halves the batch, down to one patch; if one alone does not fit, the engine is opened anew, once.
Any other fault of a batch is looked for in the same way, so that one patch's fault is not its neighbours'.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from app.nuclei.errors import EngineUnavailable, InferenceFailed
from app.nuclei.types import HoverMaps, UInt8
from app.nuclei.views import View
from app.serving.device import Copied, DeviceEngine
from app.serving.faults import Fault, fault_of

FAILED = "the model failed on this image; other requests are not affected"


@dataclass
class Attempt:
    """One batch on its way through an engine.

    Attributes:
        engine: of the batch; its `engine` is used, so this belongs to the device's thread.
        views: averaged in this order, whoever else is in the batch.
        results: maps (P, P) or the error of each patch that is through, in order.
        short: sizes of the runs for which memory did not suffice.
        rebuilt: whether the engine was opened anew.
        faulty: whether anything went wrong.
        copied_s: seconds of bringing the batch over beforehand; None if it was not.
    """

    engine: DeviceEngine
    views: Sequence[View]
    results: list[HoverMaps | Exception] = field(default_factory=list)
    short: list[int] = field(default_factory=list)
    rebuilt: bool = False
    faulty: bool = False
    copied_s: float | None = None

    def run(self, patches: Sequence[UInt8], copy: Future[Copied] | None = None) -> None:
        """Run patches, each (P, P, 3).

        Args:
            patches: of one batch.
            copy: what brings them to the device, if it was begun; one that failed is made anew.

        Raises:
            Exception: the run was ended, or the device is broken: `fault_of` says which.
        """
        try:
            if copy is not None and copy.exception() is None:
                copied = copy.result()
                self.copied_s = copied.seconds
                maps = self.engine.finish(copied.staged)
            else:
                maps = self.engine.average(np.stack(patches), self.views)
        except Exception as error:
            self._recover(patches, error)
        else:
            self.engine.rebuilt = False
            self.results.extend(maps[i] for i in range(len(patches)))

    def _recover(self, patches: Sequence[UInt8], error: Exception) -> None:
        fault = fault_of(error)
        self.faulty = True
        if fault in (Fault.ENDED, Fault.STICKY):
            raise error
        if fault is Fault.MEMORY:
            self.short.append(len(patches))
            with suppress(Exception):  # it needs a run, for which there may be no memory either
                self.engine.shrink()
        if len(patches) > 1:
            half = (len(patches) + 1) // 2
            self.run(patches[:half])
            self.run(patches[half:])
        elif fault is Fault.MEMORY and not self.engine.rebuilt:
            self.rebuilt = True
            try:
                self.engine.rebuild()
            except EngineUnavailable:
                self.results.append(_failed(error))
            else:
                self.run(patches)
        else:
            self.results.append(_failed(error))


def _failed(error: Exception) -> InferenceFailed:
    failed = InferenceFailed(FAILED)
    failed.__cause__ = error
    return failed
