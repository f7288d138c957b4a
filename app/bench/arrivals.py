"""When are requests sent? At times drawn beforehand, so that a slow service cannot slow those who ask it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def poisson(rate: float, seconds: float, most: int, seed: int = 0) -> NDArray[np.float64]:
    """Times of a Poisson process.

    Args:
        rate: requests per second, above 0.
        seconds: length of the phase; no time is at or after it.
        most: times at most.
        seed: the same seed gives the same times.

    Returns:
        (N,) float64 seconds from the start, rising; (0,) if nothing falls into the phase.

    Raises:
        ValueError: rate, seconds or most is not above 0.
    """
    if not (rate > 0 and seconds > 0 and most > 0):
        raise ValueError(f"no load has rate={rate}, seconds={seconds}, most={most}")
    expected = rate * seconds
    drawn = min(most, int(expected + 6 * expected**0.5) + 10)  # six deviations: hardly ever too few
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, drawn))
    return times[times < seconds]
