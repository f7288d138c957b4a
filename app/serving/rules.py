"""By which numbers does the scheduler share the device?"""

from __future__ import annotations

from dataclasses import dataclass

from app.serving.work import WorkClass

CPU_SLICE_S = 0.100
CPU_WATCHED_SHARE = 0.5
"""Of a slice on a CPU: patches of bulk work then run by all cores, one after the other. They keep all cores for longer
where they run side by side, and those who look on wait for that, and the event loop with them."""
GPU_SLICE_S = 0.060


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers that the scheduler works by.

    Attributes:
        interactive_weight: share of a busy device, relative to `bulk_weight`.
        bulk_weight: see `interactive_weight`.
        quantum: cost that a tenant, and each request of it, may spend per round.
        bulk_slice_s: estimated seconds that a batch of bulk work may take (at least one item goes).
        watched_share: of that slice, while somebody looks on: interactive work came lately.
        watched_s: how long ago that is at most.
        bulk_fill_s: estimated seconds by which bulk work may lengthen an interactive batch that has room for it. Full
            batches are several slices long, so without a limit whoever waits at a screen would pay for the filling.
        interactive_wait_s: how long an idle device waits for company for an interactive item.
        bulk_wait_s: the same for a bulk item.
    """

    interactive_weight: float = 8.0
    bulk_weight: float = 1.0
    quantum: float = 1.0
    bulk_slice_s: float = CPU_SLICE_S
    watched_share: float = 1.0
    watched_s: float = 10.0
    bulk_fill_s: float = 0.010
    interactive_wait_s: float = 0.0
    bulk_wait_s: float = 0.002

    def __post_init__(self) -> None:
        if not min(self.interactive_weight, self.bulk_weight, self.quantum) > 0:
            raise ValueError("weights and quantum must be positive")

    def wait_s(self, work_class: WorkClass) -> float:
        """How long an idle device waits for company for an item of a class."""
        return self.interactive_wait_s if work_class is WorkClass.INTERACTIVE else self.bulk_wait_s
