"""The rules speak of metrics, labels and values that the service exports, and each alert is tried both ways."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from app.api.errors import ANSWER
from app.serving.lifecycle import State
from app.serving.work import WorkClass
from app.telemetry import Metrics
from tests.deploy.conftest import PROJECT, alerts, read, rules, tool

PROMETHEUS = PROJECT / "deploy/prometheus"
TARGET = {"job", "instance"}  # given to every series by the scrape
SLUGS = {answer.slug for answer in ANSWER.values()}
VALUES = {  # what a label may be, where that is a fixed set
    "class": set(WorkClass),
    "outcome": {"ok", "client_error", "rejected", "cancelled", "deadline_exceeded", "error"},
    "reason": SLUGS | {"crash", "timeout", "recycle"},
    "state": {"active", State.FAILED},
    "job": {"karyon"},
}


def exported() -> dict[str, set[str]]:
    """Names of all series to their labels."""
    metrics, found = Metrics(), {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            names = set(metric._labelnames)
            for family in metric.describe():
                if isinstance(metric, Histogram):
                    found[f"{family.name}_bucket"] = names | {"le"}
                    found |= {f"{family.name}_{part}": names for part in ("sum", "count")}
                else:
                    found[family.name + ("_total" if family.type == "counter" else "")] = names
    process = (family for family in metrics.registry.collect() if family.name.startswith("process_"))
    return found | {sample.name: set(sample.labels) for family in process for sample in family.samples}


def parts(expr: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    yield expr
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if (child := getattr(expr, name, None)) is not None:
            yield from parts(child)
    for child in getattr(expr, "args", ()):
        yield from parts(child)


def selectors(expr: str) -> list[Any]:
    """Every series that a rule reads."""
    found = [part for part in parts(promql_parser.parse(expr)) if type(part).__name__ == "VectorSelector"]
    return list({id(part): part for part in found}.values())


def grouped(expr: str) -> set[str]:
    """Labels that a rule groups or matches by."""
    lists = re.findall(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)", expr)
    return {label.strip() for names in lists for label in names.split(",") if label.strip()}


RECORDED = {rule["record"]: grouped(rule["expr"]) - {"le"} for rule in rules() if "record" in rule}
SERIES = exported() | RECORDED
NAMED = [(rule.get("alert") or rule["record"], rule) for rule in rules()]


@pytest.mark.parametrize("rule", [rule for _, rule in NAMED], ids=[name for name, _ in NAMED])
def test_a_rule_reads_series_that_the_service_exports(rule):
    assert {selector.name for selector in selectors(rule["expr"])} <= set(SERIES)


@pytest.mark.parametrize("rule", [rule for _, rule in NAMED], ids=[name for name, _ in NAMED])
def test_a_rule_selects_by_labels_and_values_that_occur(rule):
    for selector in selectors(rule["expr"]):
        for matcher in selector.matchers.matchers:
            assert matcher.name in SERIES[selector.name] | TARGET
            assert set(matcher.value.split("|")) <= VALUES[matcher.name]


@pytest.mark.parametrize("rule", [rule for _, rule in NAMED], ids=[name for name, _ in NAMED])
def test_a_rule_groups_by_labels_that_its_series_have(rule):
    there = set.union(TARGET, *(SERIES[selector.name] for selector in selectors(rule["expr"])))
    assert grouped(rule["expr"]) <= there
    shown = re.findall(r"\$labels\.(\w+)", str(rule.get("annotations")))
    assert set(shown) <= there


def test_a_rule_on_a_series_that_nobody_exports_would_be_found():
    assert {one.name for one in selectors("rate(nuclei_gone_total[5m]) / up > 1")} - set(SERIES) == {
        "nuclei_gone_total",
        "up",
    }


def test_every_alert_is_tried_with_its_fault_and_without():
    tried = [one for group in read(PROMETHEUS / "tests/karyon_test.yml")["tests"] for one in group["alert_rule_test"]]
    names = {alert.name for alert in alerts()}
    assert {one["alertname"] for one in tried if one["exp_alerts"]} == names
    assert {one["alertname"] for one in tried if not one["exp_alerts"]} == names


@pytest.mark.parametrize("path", ["prometheus.yml", "kubernetes.yml"])
def test_the_rules_find_their_job(path):
    assert "karyon" in [job["job_name"] for job in read(PROMETHEUS / path)["scrape_configs"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "rules/karyon.yml"],
        ["check", "config", "prometheus.yml"],
        ["check", "config", "kubernetes.yml"],
        ["test", "rules", "tests/karyon_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments):
    command = [tool("promtool"), *arguments]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
