"""Where do the figures of all benchmarks lie? In one list, `out/bench/results.json`, an entry a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "out" / "bench" / "results.json"


def merge(entries: list[dict[str, Any]], path: Path = RESULTS) -> None:
    """Put entries (name, value, unit, bar, holds) into the list, in place of those of the same name."""
    known = json.loads(path.read_text()) if path.exists() else []
    names = {entry["name"] for entry in entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*(e for e in known if e["name"] not in names), *entries], indent=1) + "\n")
