"""Where do the figures of all benchmarks lie? In one list, `out/bench/results.json`, an entry a figure.

    python -m tests.benchmarks.results

prints them, and puts in those that were not measured here, so that none is missed unseen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LATER = [{"name": "soak_rss_slope_mb_h", "value": None, "unit": "MB/h (make soak)", "bar": 5.0, "holds": None}]
"""Measured by targets of their own."""
RESULTS = Path(__file__).parents[2] / "out" / "bench" / "results.json"


def merge(entries: list[dict[str, Any]], path: Path = RESULTS) -> None:
    """Put entries (name, value, unit, bar, holds) into the list, in place of those of the same name."""
    known = json.loads(path.read_text()) if path.exists() else []
    names = {entry["name"] for entry in entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*(e for e in known if e["name"] not in names), *entries], indent=1) + "\n")


def complete(path: Path = RESULTS) -> list[dict[str, Any]]:
    """All entries, those that were not measured among them."""
    known = json.loads(path.read_text()) if path.exists() else []
    names = {entry["name"] for entry in known}
    merge([entry for entry in LATER if entry["name"] not in names], path)
    entries: list[dict[str, Any]] = json.loads(path.read_text())
    return entries


def main() -> None:
    """Print a line a figure."""
    words = {True: "holds", False: "DOES NOT HOLD", None: ""}
    for entry in complete():
        bar = "" if entry["bar"] is None else f"bar {entry['bar']:g}"
        print(f"{entry['name']:34} {entry['value']!s:>10}  {bar:12} {words[entry['holds']]:14} {entry['unit']}")


if __name__ == "__main__":
    main()
