"""The compose file: valid, closed to the outside, and in agreement with image, settings and rules."""

from __future__ import annotations

import re

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import validators

from app import __version__
from app.settings import Settings, strangers
from tests.deploy.conftest import PROJECT, read

COMPOSE = PROJECT / "deploy/compose.yaml"


@pytest.fixture(scope="module")
def compose():
    return read(COMPOSE)


def test_the_file_is_what_the_compose_specification_says(compose):
    schema = get_builtin_schema("vendor.compose-spec")
    assert list(validators.validator_for(schema)(schema).iter_errors(compose)) == []


def test_its_variables_are_settings(compose):
    assert strangers(compose["services"]["karyon"]["environment"]) == []


def test_it_does_not_start_without_keys(compose):
    assert compose["services"]["karyon"]["environment"]["KARYON_API_KEYS"].startswith("${KARYON_API_KEYS:?")


@pytest.mark.parametrize("service", ["karyon", "prometheus"])
def test_a_service_is_reached_from_this_machine_alone_and_cannot_change_itself(compose, service):
    one = compose["services"][service]
    assert all(port.startswith("127.0.0.1:") for port in one["ports"])
    assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["mem_limit"]


def test_the_grace_period_holds_the_whole_drain(compose):
    settings = Settings()
    grace = int(compose["services"]["karyon"]["stop_grace_period"].removesuffix("s"))
    assert grace >= settings.drain_delay_s + settings.shutdown_s + 10


def test_prometheus_scrapes_the_service_by_its_name(compose):
    jobs = read(PROJECT / "deploy/prometheus/prometheus.yml")["scrape_configs"]
    target = next(job for job in jobs if job["job_name"] == "karyon")["static_configs"][0]["targets"][0]
    name, port = target.split(":")
    assert name in compose["services"]
    assert f"EXPOSE {port}" in (PROJECT / "docker/Dockerfile").read_text()


def test_prometheus_keeps_more_than_the_rules_look_back(compose):
    kept = re.search(r"retention\.time=(\d+)d", str(compose["services"]["prometheus"]["command"]))
    days = re.findall(r"\[(\d+)d\]", (PROJECT / "deploy/prometheus/rules/karyon.yml").read_text())
    assert int(kept[1]) > max(map(int, days))


def test_the_health_check_is_the_images(compose):
    check = compose["services"]["karyon"]["healthcheck"]["test"]
    assert str(check[1:]).replace("'", '"') in (PROJECT / "docker/Dockerfile").read_text()


def test_the_image_bears_the_projects_version(compose):
    assert compose["services"]["karyon"]["image"] == f"karyon:{__version__}"
