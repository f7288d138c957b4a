"""What does the service tell its operators: which metrics, which log lines?

Metrics carry the prefix `nuclei_`, seconds and bytes; labels come from small fixed sets (never tenant, request or
path). Logs are one JSON object a line and hold no image bytes, file names or query strings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LOGGER = logging.getLogger("karyon")
REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
INSTANCES = (0, 1, 5, 10, 25, 50, 100, 200, 500)


BATCH_TILES = (1, 2, 4, 8, 16, 32, 64, 128)
RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9, 1)
LAG_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)
PREFIX = "nuclei_"


class Metrics:
    """The metrics of one application, in a registry of its own.

    Buckets are NAME/PROFILE/PATCH; classes interactive and bulk. What cannot happen in this configuration (there is
    no worker process that could be restarted, and perhaps no cache) is exported as 0, so that rules find it.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count_requests()
        self._count_batches()
        self._gauge_queue()
        self._gauge_process()

    def _count_requests(self) -> None:
        self.requests = self._counter("requests", "requests answered", "route", "class", "outcome", "model")
        self.request_seconds = self._histogram(
            "request_duration_seconds", "from the first byte to the answer's last", REQUEST_SECONDS, "class", "outcome"
        )
        self.stage_seconds = self._histogram(
            "stage_duration_seconds",
            "time in one stage of a request; copy: of a batch, beside another's run",
            STAGE_SECONDS,
            "stage",
            "bucket",
        )
        self.tile_instances = self._histogram("tile_instances", "nuclei found in one image", INSTANCES)
        self.instances = self._counter("instances", "nuclei found", "class_name", "model")
        self.rejected = self._counter("admission_rejected", "requests refused for load", "reason", "class")
        self.cancelled = self._counter("cancelled_tiles", "patches that nobody waits for any more", "where")
        self.cache_requests = self._counter("cache_requests", "look-ups of results", "result")
        for where in ("queued", "running", "postprocess"):
            self.cancelled.labels(where)
        for result in ("hit", "miss"):
            self.cache_requests.labels(result)

    def _count_batches(self) -> None:
        self.batch_tiles = self._histogram("batch_tiles", "patches in one batch", BATCH_TILES, "bucket")
        self.batch_fill = self._histogram("batch_fill_ratio", "cost of a batch by its limit", RATIOS, "bucket")
        self.batch_padding = self._histogram("batch_padding_ratio", "share that was padding", RATIOS, "bucket")
        self.disagreement = self._histogram(
            "ensemble_disagreement_ratio",
            "share of one run's nuclear pixels that another does not take for such",
            RATIOS,
        )
        self.busy_seconds = self._counter("device_busy_seconds", "seconds that the device worked", "device")
        self.oom_splits = self._counter("oom_splits", "batches halved for want of memory", "bucket")
        self.rebuilds = self._counter("engine_rebuilds", "engines opened anew", "bucket")
        self.worker_restarts = self._counter("worker_restarts", "workers started again", "reason")
        for reason in ("crash", "timeout", "recycle"):
            self.worker_restarts.labels(reason)

    def _gauge_queue(self) -> None:
        self.queue_tiles = self._gauge("queue_tiles", "patches queued", "class", "bucket")
        self.queue_cost = self._gauge("queue_cost", "their cost", "class", "bucket")
        self.running_tiles = self._gauge("running_tiles", "patches on the device", "class")
        self.queue_tenants = self._gauge("queue_tenants", "callers with patches queued", "class")
        self.queue_oldest = self._gauge("queue_oldest_age_seconds", "wait of the oldest patch", "class")
        self.last_batch = self._gauge("last_batch_completed_timestamp_seconds", "when the last batch was done")
        self.slots = self._gauge("postprocess_slots", "images that are separated at once, at most")
        self.slots_in_use = self._gauge("postprocess_slots_in_use", "images that are separated now")

    def _gauge_process(self) -> None:
        self.loop_lag = self._histogram("event_loop_lag_seconds", "how late the event loop turns", LAG_SECONDS)
        self.device_healthy = self._gauge("device_healthy", "1 while the device works", "device")
        self.memory_used = self._gauge(
            "device_memory_used_bytes", "memory in use: by this process, or of the card", "device"
        )
        self.memory_limit = self._gauge(
            "device_memory_limit_bytes", "memory that it may use, or that the card has", "device"
        )
        self.cache_bytes = self._gauge("cache_bytes", "results kept in memory")
        self.model_info = self._gauge(
            "model_info",
            "1 for each model in memory, or for the default one that failed",
            "name",
            "version",
            "digest",
            "provider",
            "state",
        )
        self.load_seconds = self._gauge("model_load_duration_seconds", "start of the default model", "phase")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, meaning, labels, buckets=buckets, registry=self.registry)

    def observe_stages(self, record: Record) -> None:
        """Count the time that a request, or an image of it, spent in each stage."""
        for stage, seconds in record.stages.items():
            self.stage_seconds.labels(stage, record.bucket).observe(seconds)

    def count_result(self, counts: Mapping[str, int], measures: Mapping[str, float], model: str) -> None:
        """Count what was found in an image or a window of a slide.

        Args:
            counts: nuclei per class.
            measures: of the technical check.
            model: name of the model.
        """
        for name, count in counts.items():
            self.instances.labels(name, model).inc(count)
        if "disagreement" in measures:
            self.disagreement.observe(measures["disagreement"])

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


@dataclass
class Record:
    """What becomes known about one request while it is served.

    Attributes:
        request_id: the caller's, if sane, else ours.
        slug: of the problem that answered it, if one did.
        work_class: interactive or bulk, once the caller's wish is known.
        model: name of the model that served it; empty if none did.
        bucket: what its stages are counted under.
        stages: seconds per stage.
        nuclei: how many were found; None if the request got no result.
        cancelled: the caller hung up before the answer.
    """

    request_id: str
    slug: str = ""
    work_class: str = ""
    model: str = ""
    bucket: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    nuclei: int | None = None
    cancelled: bool = False

    def observe(self, stage: str, seconds: float) -> None:
        """Add to the time spent in `stage`."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def outcome(self, status: int) -> str:
        """One of ok, client_error, rejected, cancelled, deadline_exceeded, error."""
        if self.cancelled:
            return "cancelled"
        if status == 504:
            return "deadline_exceeded"
        if status in (429, 503) and self.slug != "device-fault":
            return "rejected"
        return "ok" if status < 400 else "client_error" if status < 500 else "error"


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object; what `log` was given stands beside time, level and event."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def log(event: str, level: int = logging.INFO, exc_info: BaseException | None = None, **facts: Any) -> None:
    """Write one line: what happened, and the facts about it."""
    LOGGER.log(level, event, exc_info=exc_info, extra={"facts": facts})


def log_as_json(level: str) -> None:
    """Send every logger of this process to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("karyon", "uvicorn.error"):
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it describes callers' files in its warnings


Report = Callable[[Record, Mapping[str, Any]], None]
"""Told what became of one request."""


def log_request(record: Record, facts: Mapping[str, Any]) -> None:
    """The one line of a request."""
    stages = {stage: round(seconds, 6) for stage, seconds in record.stages.items()}
    log("request", request_id=record.request_id, model=record.model, problem=record.slug, stages=stages, **facts)
