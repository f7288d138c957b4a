"""Whoever is woken by an alert finds a page about it."""

from __future__ import annotations

import re

import pytest

from app.settings import Settings
from app.telemetry import PREFIX
from tests.deploy.conftest import PROJECT, alerts, rules
from tests.deploy.test_rules import SERIES

RUNBOOKS = PROJECT / "deploy/runbooks"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
SEVERITY = {rule["alert"]: rule["labels"]["severity"] for rule in rules() if "alert" in rule}


def sections(text: str) -> dict[str, str]:
    """Headings of the second level to what stands below them."""
    pieces = re.split(r"^## (\S+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_has_its_section_in_the_runbook_that_it_names(alert):
    page = PROJECT / alert.annotations["runbook"]
    section = sections(page.read_text())[alert.name]
    assert section.strip().startswith({"page": "**Pages.**", "ticket": "**Ticket.**"}[SEVERITY[alert.name]])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_runbook_speaks_of_alerts_that_exist(page):
    assert set(sections(page.read_text())) == {
        alert.name for alert in alerts() if alert.annotations["runbook"] == str(page.relative_to(PROJECT))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_runbook_names_metrics_settings_and_pages_that_exist(page):
    text = page.read_text()
    assert set(re.findall(rf"\b(?:{PREFIX}|nuclei:)[\w:]+", text)) <= set(SERIES) | HISTOGRAMS
    assert set(re.findall(r"KARYON_(\w+)", text)) <= {name.upper() for name in Settings.model_fields}
    assert all((RUNBOOKS / name).is_file() for name in re.findall(r"\]\((\S+\.md)\)", text))


HISTOGRAMS = {name.removesuffix("_bucket") for name in SERIES if name.endswith("_bucket")}
