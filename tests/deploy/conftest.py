"""Where the tools of operators are, and what the rules say."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
RULES = PROJECT / "deploy/prometheus/rules/karyon.yml"


class Alert(NamedTuple):
    """One alert: its name, expression and annotations."""

    name: str
    expr: str
    annotations: dict[str, str]


def read(path: Path) -> Any:
    """A YAML file, or all documents of it if there are several."""
    documents = list(yaml.safe_load_all((PROJECT / path).read_text()))
    return documents[0] if len(documents) == 1 else documents


def rules() -> list[dict[str, Any]]:
    """Recording and alerting rules in their order."""
    return [rule for group in read(RULES)["groups"] for rule in group["rules"]]


def alerts() -> list[Alert]:
    """The alerts of the rules, in their order."""
    return [Alert(rule["alert"], rule["expr"], rule["annotations"]) for rule in rules() if "alert" in rule]


def tool(name: str) -> str:
    """Path of promtool or prometheus, beside the interpreter or on the path; skips the test without it."""
    places = f"{Path(sys.executable).parent}:{Path(sys.prefix) / 'bin'}"
    found = shutil.which(name, path=places) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed; make promtool brings it where there is apt-get")
    return found
