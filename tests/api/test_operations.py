"""What operators see: probes, metrics, log lines, the model list and the documentation page."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from html import unescape
from pathlib import Path

import pytest

import app
from app.api.explained import QC_CODES
from app.nuclei import qc
from app.telemetry import JsonLines
from tests.api.exposition import samples

pytestmark = pytest.mark.anyio
PROBES = ("startup", "ready", "live")


class Held:
    """An engine that waits for a sign before each batch."""

    def __init__(self, engine) -> None:
        self.engine, self.go, self.reached = engine, threading.Event(), threading.Event()

    def predict(self, patches):
        self.reached.set()
        assert self.go.wait(30)
        return self.engine.predict(patches)


async def states(service) -> dict[str, int]:
    return {probe: (await service.http.get(f"/healthz/{probe}")).status_code for probe in PROBES}


async def test_the_service_answers_while_its_model_is_still_proving_itself(serving, ink, png):
    engine = Held(ink)
    async with serving(wait=False, engine=engine) as service:
        assert await states(service) == {"startup": 503, "ready": 503, "live": 200}
        refusal = (await service.segment(png)).json()
        assert (refusal["type"], refusal["retry_after_seconds"]) == ("urn:karyon:problem:not-ready", 5)
        engine.go.set()
        await asyncio.to_thread(service.app.state.services.lifecycle.wait_started, 60)
        assert await states(service) == {"startup": 200, "ready": 200, "live": 200}


class Drifting:
    """An engine whose maps are not those of the golden pair."""

    def __init__(self, engine) -> None:
        self.engine = engine

    def predict(self, patches):
        maps = self.engine.predict(patches)
        maps.np_prob[:] += 0.1
        return maps


async def test_a_model_that_drifts_is_never_ready(serving, ink, png, caplog):
    caplog.set_level(logging.INFO, "karyon")
    async with serving(engine=Drifting(ink)) as service:
        assert await states(service) == {"startup": 200, "ready": 503, "live": 200}
        assert (await service.http.get("/healthz/live")).json() == {"state": "failed"}
        assert (await service.segment(png)).status_code == 503
        reasons = [record.facts["reason"] for record in caplog.records if "does not serve" in record.message]
        assert len(reasons) == 1
        assert reasons[0].startswith("ArtifactDrift")


async def test_a_model_that_does_not_serve_is_named_in_the_metrics_with_its_version(serving, ink):
    async with serving(engine=Drifting(ink)) as service:
        await states(service)
        line = 'nuclei_model_info{digest="",name="ink",provider="",state="failed",version="1"} 1.0'
        assert line in (await service.http.get("/metrics")).text.splitlines()


async def test_the_start_is_logged_with_model_digest_and_licence(serving, caplog):
    caplog.set_level(logging.INFO, "karyon")
    async with serving() as service:
        (digest,) = [m["sha256"] for m in (await service.http.get("/v1/models")).json()["models"]]
    (facts,) = [record.facts for record in caplog.records if record.message == "ready"]
    assert (facts["model"], facts["sha256"], facts["licence"]) == ("ink", digest, "CC0-1.0")


async def test_a_request_leaves_one_line_without_names_or_queries(service, png, caplog):
    caplog.set_level(logging.INFO, "karyon")
    await service.http.post("/v1/segment?mpp=0.5", files={"image": ("Jane Doe.png", png, "image/png")})
    (record,) = [r for r in caplog.records if r.message == "request"]
    line = json.loads(JsonLines().format(record))
    assert line | {"method": "POST", "route": "/v1/segment", "status": 200, "outcome": "ok", "nuclei": 132} == line
    assert not re.search(r"Jane|mpp|PNG", json.dumps(line))


async def test_the_callers_request_id_is_kept_if_it_is_sane(service, png):
    kept = await service.http.get("/healthz/live", headers={"X-Request-Id": "case-7.tile_3"})
    replaced = await service.http.get("/healthz/live", headers={"X-Request-Id": "<script>" * 20})
    assert kept.headers["x-request-id"] == "case-7.tile_3"
    assert re.fullmatch(r"[0-9a-f]{32}", replaced.headers["x-request-id"])


async def test_requests_are_counted_by_what_became_of_them(service, png):
    await service.segment(png)
    await service.segment(b"")
    await service.http.get("/nowhere/patient-17")
    counted = (await samples(service))["nuclei_requests_total"]
    labels = [("interactive", "ink", "ok", "/v1/segment"), ("interactive", "", "client_error", "/v1/segment"),
              ("none", "", "client_error", "unmatched")]  # fmt: skip
    names = ("class", "model", "outcome", "route")
    assert counted == {tuple(zip(names, values, strict=True)): 1.0 for values in labels}


async def test_nuclei_and_stages_are_counted(service, png):
    found = (await service.segment(png)).json()["summary"]["counts"]
    seen = await samples(service)
    counted = {dict(labels)["class_name"]: value for labels, value in seen["nuclei_instances_total"].items()}
    assert counted == found
    assert seen["nuclei_tile_instances_sum"] == {(): 132.0}
    timed = {(dict(labels)["stage"], dict(labels)["bucket"]) for labels in seen["nuclei_stage_duration_seconds_count"]}
    assert {("infer", "ink/fast/512"), ("encode", "ink/fast/512")} <= timed


async def test_metrics_name_the_model_and_the_process(service):
    seen = await samples(service)
    ((labels, value),) = seen["nuclei_model_info"].items()
    assert (dict(labels)["name"], dict(labels)["state"], value) == ("ink", "active", 1.0)
    assert "process_start_time_seconds" in seen
    assert {dict(labels)["phase"] for labels in seen["nuclei_model_load_duration_seconds"]} == {
        "verify", "open", "prove", "enrol"
    }  # fmt: skip


async def test_refusals_for_load_are_counted_by_reason(service, png):
    service.app.state.services.lifecycle.drain()
    await service.segment(png)
    rejected = (await samples(service))["nuclei_admission_rejected_total"]
    assert rejected == {(("class", "interactive"), ("reason", "draining")): 1.0}


async def test_the_model_list_says_what_a_caller_must_know(service):
    (entry,) = (await service.http.get("/v1/models")).json()["models"]
    assert entry | {"name": "ink", "version": "1", "active": True, "mpp": 0.5, "licence": "CC0-1.0"} == entry
    assert set(entry) == {
        "name", "version", "sha256", "active", "classes", "mpp", "patch_sizes", "licence", "training_data", "scores"
    }  # fmt: skip


async def test_the_model_list_says_what_is_not_shipped_until_it_is_imported(service, store, ink, tissue, model_builder):
    (missing,) = (await service.http.get("/v1/models")).json()["not_shipped"]
    assert missing["name"] == "karyon-ensemble"
    assert "not trained yet" in missing["reason"]
    assert "karyon models import" in missing["reason"]
    model_builder(store / "karyon-ensemble" / "1", ink, tissue[:200, :200], name="karyon-ensemble")
    (store / "karyon-ensemble" / "ACTIVE").write_text("1\n")
    assert (await service.http.get("/v1/models")).json()["not_shipped"] == []


async def test_an_unreadable_model_is_left_out_of_the_list(service, store):
    (store / "ink" / "2").mkdir()
    (store / "ink" / "2" / "manifest.json").write_text("{")
    assert [m["version"] for m in (await service.http.get("/v1/models")).json()["models"]] == ["1"]


async def test_the_documentation_asks_nothing_of_other_servers(service):
    page = await service.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"<script|<link|<img|(?:src|href)=.?https?:", page.text)
    assert "curl --data-binary @tile.png" in page.text


async def test_every_address_is_documented(service):
    schema = (await service.http.get("/openapi.json")).json()
    page = (await service.http.get("/docs")).text
    assert set(schema["paths"]) >= {
        "/v1/segment", "/v1/segment/batch", "/v1/models", "/v1/slides", "/v1/slides/{slide_id}",
        "/v1/slides/{slide_id}/jobs", "/v1/jobs/{job_id}", "/v1/jobs/{job_id}/events",
        "/healthz/startup", "/healthz/ready", "/healthz/live", "/metrics",
    }  # fmt: skip
    assert all(f"<code>{path}</code>" in page for path in schema["paths"])


@pytest.mark.parametrize("path", ["/healthz/startup", "/healthz/ready", "/healthz/live", "/metrics", "/docs"])
async def test_a_probe_may_ask_for_the_head_alone(serving, path):
    async with serving() as service:
        answer = await service.http.head(path)
    assert answer.status_code == 200


async def test_the_page_explains_headers_refusals_and_codes(service):
    page = (await service.http.get("/docs")).text
    for told in ("X-Request-Timeout-Ms", "X-Request-Class", "X-API-Key", "Retry-After", *QC_CODES):
        assert f"<code>{told}</code>" in page
    assert all(meaning in unescape(page) for meaning in QC_CODES.values())


def test_every_code_of_the_technical_check_is_explained():
    asked = {rule.code for rule in qc._RULES} | {"no_nuclei_in_tissue", "mpp_assumed", "mpp_conflict"}
    assert set(QC_CODES) == asked


def test_the_viewer_has_words_for_the_same_codes():
    words = (Path(app.__file__).parent / "viewer/src/words.js").read_text()
    (codes,) = re.findall(r"const CODES = \{(.*?)\};", words, re.DOTALL)
    assert set(re.findall(r"^ *(\w+):", codes, re.MULTILINE)) == set(QC_CODES)


async def test_a_route_documents_the_refusals_that_it_can_give_and_no_others(service):
    paths = (await service.http.get("/openapi.json")).json()["paths"]
    assert documented(paths["/v1/segment"]["post"]) == documented(paths["/v1/segment/batch"]["post"]) == {
        "unauthenticated", "forbidden", "unknown-model", "not-acceptable", "request-timeout", "payload-too-large",
        "unsupported-media-type", "invalid-image", "invalid-parameter", "tenant-quota", "inference-failed",
        "overloaded", "deadline-unattainable", "not-ready", "draining", "device-fault", "deadline-exceeded",
    }  # fmt: skip
    assert documented(paths["/v1/models"]["get"]) == {"unauthenticated"}
    responses = paths["/v1/segment"]["post"]["responses"].items()
    assert [code for code, said in responses if "Retry-After" in said.get("headers", {})] == ["429", "503"]


def documented(operation: dict) -> set[str]:
    """The problems that an operation lists."""
    contents = [response.get("content", {}) for response in operation["responses"].values()]
    return {slug for one in contents for slug in one.get("application/problem+json", {}).get("examples", {})}
