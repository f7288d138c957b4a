"""How long will the device need for a batch?"""

from __future__ import annotations

import math

ROUNDING = 1e-9  # sums of costs are off by this at most
GAIN = 0.1  # of an error that one batch corrects: speed drifts over many batches, noise does not
OUTLIER = 1.0  # errors count up to this share of the estimate, so that one stall moves it by GAIN at most
BOUND = 10.0  # a coefficient stays within this factor of its calibration


class CostModel:
    """Seconds of one bucket's batches, `a * cost + b`, calibrated at startup and refined by every batch.

    Attributes:
        a: seconds per unit of cost.
        b: seconds of a batch, whatever its size.
        max_batch_cost: the most that a batch should hold; an item that costs more runs alone.
    """

    def __init__(self, a: float, b: float, max_batch_cost: float, unit: float = 0.0) -> None:
        """What the calibration found.

        Args:
            a: seconds per unit of cost, positive.
            b: seconds per batch, 0 or more.
            max_batch_cost: positive.
            unit: cost of one item where batches are filled up to a power of two of them; 0 where they are not.

        Raises:
            ValueError: a number is out of range.
        """
        if not (a > 0 and b >= 0 and max_batch_cost > 0):
            raise ValueError(f"no cost model has a={a}, b={b}, max_batch_cost={max_batch_cost}")
        self.a = a
        self.b = b
        self.max_batch_cost = max_batch_cost
        self._unit = unit
        self._a_range = (a / BOUND, a * BOUND)
        self._b_range = (0.0, (a + b) * BOUND)

    def estimate(self, cost: float) -> float:
        """Seconds for a batch of this cost, with what it is filled up with."""
        return self.a * self._filled(cost) + self.b

    @property
    def cost_per_s(self) -> float:
        """Cost that is done per second in full batches."""
        return self.max_batch_cost / self.estimate(self.max_batch_cost)

    def cost_within(self, seconds: float) -> float:
        """The largest cost whose estimate is at most `seconds`; 0 if there is none."""
        most = max(0.0, (seconds - self.b) / self.a)
        if self._unit and most >= self._unit:
            return float(self._unit * 2 ** math.floor(math.log2(most / self._unit)))
        return most

    def learn(self, cost: float, seconds: float) -> None:
        """Move towards what a batch really took.

        A normalised least-mean-squares step: after it, the estimate at this cost is off by GAIN less. Large batches
        correct mostly `a`, small ones mostly `b`, and a load of one size only leaves their ratio alone.

        Args:
            cost: of the batch.
            seconds: that the device was busy with it.
        """
        cost, expected = self._filled(cost), self.estimate(cost)
        error = _clamp(seconds - expected, -OUTLIER * expected, OUTLIER * expected)
        knee = self.max_batch_cost / 2
        slope = cost**2 / (cost**2 + knee**2)
        step, old_b = GAIN * error, self.b
        self.b = _clamp(old_b + step * (1 - slope), *self._b_range)
        self.a = _clamp(self.a + (step - (self.b - old_b)) / cost, *self._a_range)  # and what b has no range left for

    def _filled(self, cost: float) -> float:
        if not self._unit or cost <= self._unit:
            return cost
        return float(self._unit * 2 ** math.ceil(math.log2(cost / self._unit) - ROUNDING))


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))
