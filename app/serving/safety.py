"""How large may a batch be on a device whose memory ran out before?"""

from __future__ import annotations

from dataclasses import dataclass

from app.serving.costs import CostModel

GOOD_BATCHES = 1000


@dataclass
class SafeSize:
    """The limit of one bucket's batches: falls at once when memory runs out, rises slowly while it suffices.

    Attributes:
        model: whose `max_batch_cost` is turned.
        cost: of one item.
    """

    model: CostModel
    cost: float

    def __post_init__(self) -> None:
        self._calibrated = self.model.max_batch_cost
        self._good = 0

    def short(self, count: int) -> None:
        """Memory did not suffice for so many items at once; half of them is the limit now."""
        self.model.max_batch_cost = min(self.model.max_batch_cost, max(1, count // 2) * self.cost)
        self._good = 0

    def good(self) -> None:
        """A batch went through; one item more is tried after a thousand, up to what the calibration found."""
        if self.model.max_batch_cost >= self._calibrated:
            return
        self._good += 1
        if self._good == GOOD_BATCHES:
            self._good = 0
            self.model.max_batch_cost = min(self._calibrated, self.model.max_batch_cost + self.cost)
