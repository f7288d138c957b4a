"""What became of each request, and what do many of them say?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

WINDOW_S = 5.0
WINDOWS = 3
WITHIN = 0.10
NO_ANSWER, NOT_SENT = 0, -1
REFUSALS = (429, 503)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: HTTP status (`NO_ANSWER`: nothing did) and the milliseconds of each stage, if it told."""

    status: int
    stages_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Times are seconds from the start of its phase.

    Attributes:
        intended_s: when it was to be sent; latency counts from here, however late the sender was.
        sent_s: when it was sent.
        ended_s: when the last byte of the answer was there.
        answer: what came back; status `NOT_SENT` if too many were open.
    """

    intended_s: float
    sent_s: float
    ended_s: float
    answer: Answer

    @property
    def ok(self) -> bool:
        """Whether it was served."""
        return 200 <= self.answer.status < 300

    @property
    def refused(self) -> bool:
        """Whether it was turned away for load."""
        return self.answer.status in REFUSALS

    @property
    def latency_s(self) -> float:
        """From the intended time."""
        return self.ended_s - self.intended_s


@dataclass(frozen=True, slots=True)
class Summary:
    """A phase in figures; milliseconds are of requests that were served, and NaN if none was.

    Attributes:
        offered_per_s: requests intended per second.
        answered_per_s: served per second.
        goodput_per_s: served within the objective per second.
        sent, ok, refused, failed: requests; failed is all that was neither served nor refused.
        p50_ms, p95_ms, p99_ms: latency from the intended time.
        send_lag_p99_ms: how late the sender itself was.
        stable: whether the phase settled; None if it was too short to tell.
    """

    offered_per_s: float
    answered_per_s: float
    goodput_per_s: float
    sent: int
    ok: int
    refused: int
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    send_lag_p99_ms: float
    stable: bool | None


def percentile_ms(seconds: Sequence[float], q: float) -> float:
    """A percentile in milliseconds; NaN of nothing."""
    return float(np.percentile(seconds, q)) * 1000 if len(seconds) else float("nan")


def settled_at(windows: Sequence[float]) -> int | None:
    """The first of three neighbouring windows whose values lie within 10 % of their mean; None if there are none."""
    for first in range(len(windows) - WINDOWS + 1):
        three = windows[first : first + WINDOWS]
        mean = sum(three) / WINDOWS
        if mean > 0 and max(three) - min(three) <= WITHIN * mean:
            return first
    return None


def keeping_up(samples: Sequence[Sample], seconds: float) -> list[float]:
    """Per whole window of 5 s, answers that came in it by requests intended in it.

    That is steady both while a service keeps up and while it is overrun evenly, whereas the number of Poisson
    arrivals differs by more than 10 % between windows of a hundred.
    """
    edges = np.arange(0, seconds + 1e-9, WINDOW_S)
    intended, _ = np.histogram([s.intended_s for s in samples], edges)
    ended, _ = np.histogram([s.ended_s for s in samples if s.answer.status > 0], edges)
    return [float(out / into) if into else 0.0 for out, into in zip(ended, intended, strict=True)]


def per_second(samples: Sequence[Sample], seconds: float) -> list[float]:
    """Per whole window of 5 s, requests served per second."""
    ended, _ = np.histogram([s.ended_s for s in samples if s.ok], np.arange(0, seconds + 1e-9, WINDOW_S))
    return [float(n) / WINDOW_S for n in ended]


def summarise(samples: Sequence[Sample], seconds: float, objective_s: float, windows: Sequence[float] = ()) -> Summary:
    """Figures of a phase, from when it settled; of all of it if it did not.

    Args:
        samples: of the whole phase.
        seconds: its length, above 0.
        objective_s: latency up to which an answer counts as good.
        windows: what `settled_at` judges; empty: not judged.
    """
    first = settled_at(windows)
    start = 0.0 if first is None else first * WINDOW_S
    kept, length = [s for s in samples if s.intended_s >= start], seconds - start
    served = [s.latency_s for s in kept if s.ok]
    refused = sum(s.refused for s in kept)
    return Summary(
        offered_per_s=len(kept) / length,
        answered_per_s=len(served) / length,
        goodput_per_s=sum(latency <= objective_s for latency in served) / length,
        sent=len(kept),
        ok=len(served),
        refused=refused,
        failed=len(kept) - len(served) - refused,
        p50_ms=percentile_ms(served, 50),
        p95_ms=percentile_ms(served, 95),
        p99_ms=percentile_ms(served, 99),
        send_lag_p99_ms=percentile_ms([s.sent_s - s.intended_s for s in kept], 99),
        stable=first is not None if len(windows) >= WINDOWS else None,
    )


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all have the same, 1/N if one has everything; NaN if nobody has anything."""
    total, squares = sum(shares), sum(share**2 for share in shares)
    return total**2 / (len(shares) * squares) if squares else float("nan")
