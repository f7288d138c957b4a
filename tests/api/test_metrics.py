"""Metrics: every name that rules and dashboards use, with its labels and buckets, and nothing without bounds."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from prometheus_client import Counter, Gauge, Histogram

from app.api.observing import Observer, refresh
from app.serving.card import CardMemory
from app.telemetry import Metrics
from tests.api.exposition import samples
from tests.drawn import InkEngine
from tests.serving.benches import Bench, Lorry, wait_for

pytestmark = pytest.mark.anyio
LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
RATIO = (0.1, 0.25, 0.5, 0.75, 0.9, 1)
HISTOGRAMS = {  # name: (labels, buckets), as published
    "request_duration_seconds": ("class outcome", LATENCY),
    "stage_duration_seconds": ("stage bucket", STAGE),
    "batch_tiles": ("bucket", (1, 2, 4, 8, 16, 32, 64, 128)),
    "batch_fill_ratio": ("bucket", RATIO),
    "batch_padding_ratio": ("bucket", RATIO),
    "ensemble_disagreement_ratio": ("", RATIO),
    "event_loop_lag_seconds": ("", (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)),
    "tile_instances": ("", (0, 1, 5, 10, 25, 50, 100, 200, 500)),
}
COUNTERS = {
    "requests": "route class outcome model",
    "admission_rejected": "reason class",
    "device_busy_seconds": "device",
    "oom_splits": "bucket",
    "engine_rebuilds": "bucket",
    "cancelled_tiles": "where",
    "worker_restarts": "reason",
    "cache_requests": "result",
    "instances": "class_name model",
}
GAUGES = {
    "queue_tiles": "class bucket",
    "queue_cost": "class bucket",
    "running_tiles": "class",
    "queue_tenants": "class",
    "queue_oldest_age_seconds": "class",
    "device_healthy": "device",
    "device_memory_used_bytes": "device",
    "device_memory_limit_bytes": "device",
    "last_batch_completed_timestamp_seconds": "",
    "postprocess_slots": "",
    "postprocess_slots_in_use": "",
    "cache_bytes": "",
    "model_load_duration_seconds": "phase",
    "model_info": "name version digest provider state",
}
IN_RULES = {  # as samples, after a request or two
    "nuclei_requests_total",
    "nuclei_request_duration_seconds_bucket",
    "nuclei_batch_tiles_sum",
    "nuclei_batch_tiles_count",
    "nuclei_queue_tiles",
    "nuclei_running_tiles",
    "nuclei_last_batch_completed_timestamp_seconds",
    "nuclei_device_healthy",
    "process_start_time_seconds",
    "nuclei_queue_oldest_age_seconds",
    "nuclei_admission_rejected_total",
    "nuclei_oom_splits_total",
    "nuclei_model_info",
    "nuclei_event_loop_lag_seconds_bucket",
    "nuclei_postprocess_slots_in_use",
    "nuclei_postprocess_slots",
    "nuclei_worker_restarts_total",
    "process_resident_memory_bytes",
    "nuclei_instances_total",
}


def own_metrics() -> dict[str, Counter | Gauge | Histogram]:
    """Name without prefix -> metric."""
    found = [one for one in vars(Metrics()).values() if isinstance(one, Counter | Gauge | Histogram)]
    return {one._name.removeprefix("nuclei_"): one for one in found}


@pytest.mark.parametrize(
    ("kind", "published"),
    [(Counter, COUNTERS), (Gauge, GAUGES), (Histogram, {name: labels for name, (labels, _) in HISTOGRAMS.items()})],
    ids=["counters", "gauges", "histograms"],
)
def test_names_and_labels_are_the_published_ones(kind, published):
    found = {name: " ".join(one._labelnames) for name, one in own_metrics().items() if isinstance(one, kind)}
    assert found == published


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_buckets_are_the_published_ones(name):
    assert tuple(own_metrics()[name]._kwargs["buckets"]) == HISTOGRAMS[name][1]


async def test_every_metric_that_rules_name_is_exported(service, png):
    await service.segment(png)
    await asyncio.sleep(0.3)  # until the event loop has shown that it turns
    service.app.state.services.lifecycle.drain()
    await service.segment(png)
    assert IN_RULES - set(await samples(service)) == set()


async def test_a_batch_is_counted_under_its_bucket(service, png):
    before = await samples(service)
    await service.segment(png)
    after = await samples(service)
    bucket = (("bucket", "ink/fast/512"),)
    counts = [seen["nuclei_batch_tiles_count"].get(bucket, 0) for seen in (before, after)]
    assert counts[1] == counts[0] + 1
    assert after["nuclei_batch_fill_ratio_count"][bucket] == counts[1]
    assert after["nuclei_device_busy_seconds_total"][(("device", "cpu"),)] > 0
    assert after["nuclei_device_healthy"] == {(("device", "cpu"),): 1}


class Gate:
    """An engine that can be closed."""

    def __init__(self, engine) -> None:
        self.engine, self.open, self.reached = engine, threading.Event(), threading.Event()
        self.open.set()

    def predict(self, patches):
        self.reached.set()
        assert self.open.wait(30)
        return self.engine.predict(patches)


async def test_the_queue_can_be_watched(serving, ink, png):
    gate = Gate(ink)
    async with serving(engine=gate) as service:
        gate.reached.clear()
        gate.open.clear()
        tasks = [asyncio.create_task(service.segment(png))]
        assert await asyncio.to_thread(gate.reached.wait, 30)
        tasks.append(asyncio.create_task(service.segment(png, headers={"X-Request-Class": "bulk"})))
        while service.app.state.services.budget.held < 8:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        seen = await samples(service)
        gate.open.set()
        await asyncio.gather(*tasks)
    where = (("bucket", "ink/fast/512"), ("class", "bulk"))
    assert (seen["nuclei_queue_tiles"][where], seen["nuclei_queue_cost"][where]) == (1, 4)
    assert seen["nuclei_running_tiles"] == {(("class", "interactive"),): 1, (("class", "bulk"),): 0}
    assert seen["nuclei_queue_tenants"] == {(("class", "interactive"),): 0, (("class", "bulk"),): 1}
    assert seen["nuclei_queue_oldest_age_seconds"][(("class", "bulk"),)] > 0


async def test_a_request_is_counted_under_the_class_that_it_ran_in(service, png):
    await service.segment(png, headers={"X-Request-Class": "bulk"})
    files = [("image", ("a.png", png, "image/png"))] * 2
    await service.http.post("/v1/segment/batch", files=files)
    seen = await samples(service)
    routes = {dict(labels)["route"]: dict(labels)["class"] for labels in seen["nuclei_requests_total"]}
    assert routes["/v1/segment"] == routes["/v1/segment/batch"] == "bulk"
    assert seen["nuclei_tile_instances_count"][()] == 3


async def test_disagreement_is_counted_of_images_that_several_views_were_run_of(service, png):
    for profile in ("fast", "accurate"):
        assert (await service.segment(png, params={"mpp": 0.5, "profile": profile})).status_code == 200
    seen = await samples(service)
    assert seen["nuclei_ensemble_disagreement_ratio_count"] == {(): 1.0}


def test_bringing_a_batch_to_the_device_while_another_runs_is_timed_as_copying():
    metrics = Metrics()
    bench = Bench(most=4, grey=Lorry(), watcher=Observer(metrics))
    with bench.held():
        tray = bench.submit(10, 20, 30, 40, 50)
        wait_for(lambda: bench.grey.copied == [[10, 20, 30, 40]])
    tray.wait()
    bench.runner.close()
    series = {(s.name, s.labels.get("stage")): s.value for m in metrics.registry.collect() for s in m.samples}
    assert series["nuclei_stage_duration_seconds_count", "copy"] == 1  # of three batches


async def test_what_callers_choose_adds_no_series(service, png):
    async def ask(number: int) -> None:
        headers = {"X-Request-Id": f"r{number}", "X-API-Key": f"k{number}", "User-Agent": f"u{number}"}
        await service.segment(png, headers=headers)
        await service.segment(png, params={"model": f"nobody{number}"}, headers=headers)
        await service.http.get(f"/slides/patient-{number}", headers=headers)
        await service.http.request(f"VERB{number}", "/v1/segment", headers=headers)

    await ask(0)
    await samples(service)
    before = {name: set(series) for name, series in (await samples(service)).items()}
    for number in range(1, 8):
        await ask(number)
    assert {name: set(series) for name, series in (await samples(service)).items()} == before


class OnACard(InkEngine):
    """The same engine where a GPU would be."""

    provider, device = "CUDAExecutionProvider", "cuda"


async def test_memory_of_the_card_is_counted_beside_that_of_the_process(serving):
    async with serving(engine=OnACard()) as service:
        services = service.app.state.services
        memory = CardMemory(used=300, total=1000)
        refresh(replace(services, card=SimpleNamespace(memory=lambda: memory)))
        used, limit = (services.metrics.memory_used, services.metrics.memory_limit)
        assert (used.labels("cuda")._value.get(), limit.labels("cuda")._value.get()) == (300, 1000)
        assert 0 < used.labels("cpu")._value.get() < limit.labels("cpu")._value.get()
