"""How is a measurement told? A table for people, JSON for programs."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app import __version__
from app.bench.samples import Summary

HEADS = ("phase", "offered/s", "served/s", "good/s", "sent", "refused", "failed", "p50", "p95", "p99", "late", "stable")
STABLE = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of load and its figures."""

    name: str
    summary: Summary


def table(phases: Sequence[Phase]) -> str:
    """The phases as aligned text; latencies in ms."""
    rows = [HEADS, *(_row(phase) for phase in phases)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _row(phase: Phase) -> tuple[str, ...]:
    own = phase.summary
    rates = (f"{rate:.1f}" for rate in (own.offered_per_s, own.answered_per_s, own.goodput_per_s))
    counts = (str(n) for n in (own.sent, own.refused, own.failed))
    times = (_ms(ms) for ms in (own.p50_ms, own.p95_ms, own.p99_ms, own.send_lag_p99_ms))
    return (phase.name, *rates, *counts, *times, STABLE[own.stable])


def _ms(milliseconds: float) -> str:
    return "-" if math.isnan(milliseconds) else f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"


def write_json(path: Path, phases: Sequence[Phase], facts: dict[str, Any]) -> None:
    """Write the phases, and what they were measured on; NaN becomes null."""
    content = {
        "karyon": __version__,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        **facts,
        "phases": [{"name": phase.name, **_plain(asdict(phase.summary))} for phase in phases],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in figures.items()}
