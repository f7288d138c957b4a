"""A real Prometheus beside a real service: the rules load, the service is up, its series arrive."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import yaml

from tests.api.conftest import build_model
from tests.deploy.conftest import PROJECT, alerts, tool
from tests.drawn import InkEngine, draw_tissue

PATIENCE_S = 90
SERVE = """
import sys, uvicorn
from app.main import create_app
from app.settings import Settings
from tests.drawn import InkEngine
settings = Settings(model="ink", model_store=sys.argv[1], cache=sys.argv[1] + "/.cache", calibration_s=0)
app = create_app(settings, lambda artifact, provider, threads: InkEngine())
uvicorn.run(app, port=int(sys.argv[2]), log_level="critical")
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def until(ask: Any, what: str) -> Any:
    """What `ask` returns once it is something."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        try:
            if (answer := ask()) is not None:
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"waited {PATIENCE_S} s for {what}")


@contextmanager
def running(*command: object, **where: Any) -> Iterator[None]:
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **where
    ) as one:
        try:
            yield
        finally:
            one.kill()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus with the project's own configuration, which scrapes a service on loopback."""
    binary, folder = tool("prometheus"), tmp_path_factory.mktemp("prometheus")
    build_model(folder / "store/ink/1", InkEngine(), draw_tissue(256, 256))
    (folder / "store/ink/ACTIVE").write_text("1\n")
    service, own = free_port(), free_port()
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(configured(service)))
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder}", f"--web.listen-address=127.0.0.1:{own}"]
    with (
        running(sys.executable, "-c", SERVE, folder / "store", service, cwd=PROJECT, env=env),
        running(binary, *arguments),
    ):
        yield f"http://127.0.0.1:{own}"


def configured(port: int) -> dict[str, Any]:
    """The project's configuration with the service's address, and at a test's pace."""
    folder = PROJECT / "deploy/prometheus"
    config: dict[str, Any] = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(folder / pattern) for pattern in config["rule_files"]]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "karyon"]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    return config


def value(address: str, query: str) -> float | None:
    """Value of a query that gives one series; None while there is none, or Prometheus is starting (503, in words)."""
    answer = httpx.get(f"{address}/api/v1/query", params={"query": query})
    found = answer.json() if answer.is_success else {}
    return float(found["data"]["result"][0]["value"][1]) if found.get("data", {}).get("result") else None


def test_the_service_is_up(prometheus):
    assert until(lambda: value(prometheus, 'up{job="karyon"} == 1'), "a scrape that succeeds") == 1


@pytest.mark.parametrize(
    "series",
    [
        'nuclei_model_info{name="ink",state="active"}',
        "nuclei_device_healthy",
        "nuclei_postprocess_slots",
        "nuclei_last_batch_completed_timestamp_seconds > 0",
        'process_start_time_seconds{job="karyon"}',
    ],
)
def test_series_that_rules_need_arrive(prometheus, series):
    assert until(lambda: value(prometheus, series), series) > 0


def test_every_rule_is_loaded_and_well(prometheus):
    def evaluated() -> list[dict[str, Any]] | None:
        groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if rules and all(rule["health"] == "ok" for rule in rules) else None

    rules = until(evaluated, "all rules to be evaluated without an error")
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == {alert.name for alert in alerts()}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
