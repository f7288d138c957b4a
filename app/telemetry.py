"""What does the service tell its operators: which metrics, which log lines?

Metrics carry the prefix `nuclei_`, seconds and bytes; labels come from small fixed sets (never tenant, request or
path). Logs are one JSON object a line and hold no image bytes, file names or query strings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LOGGER = logging.getLogger("karyon")
REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
INSTANCES = (0, 1, 5, 10, 25, 50, 100, 200, 500)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "nuclei_requests", "requests answered", ["route", "class", "outcome", "model"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "nuclei_request_duration_seconds",
            "from the request's first byte to the answer's last",
            ["class", "outcome"],
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "nuclei_stage_duration_seconds",
            "time in one stage of a request",
            ["stage", "bucket"],
            buckets=STAGE_SECONDS,
            registry=self.registry,
        )
        self.tile_instances = Histogram(
            "nuclei_tile_instances", "nuclei found in one image", buckets=INSTANCES, registry=self.registry
        )
        self.instances = Counter("nuclei_instances", "nuclei found", ["class_name", "model"], registry=self.registry)
        self.rejected = Counter(
            "nuclei_admission_rejected", "requests refused for load", ["reason", "class"], registry=self.registry
        )
        self.model_info = Gauge(
            "nuclei_model_info",
            "1 for each model in memory or failed",
            ["name", "version", "digest", "provider", "state"],
            registry=self.registry,
        )
        self.load_seconds = Gauge(
            "nuclei_model_load_duration_seconds", "start of the default model", ["phase"], registry=self.registry
        )

    def observe_stages(self, record: Record) -> None:
        """Count the time that a request, or an image of it, spent in each stage."""
        for stage, seconds in record.stages.items():
            self.stage_seconds.labels(stage, record.bucket).observe(seconds)

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


def log_request(record: Record, facts: Mapping[str, Any]) -> None:
    """The one line of a request."""
    stages = {stage: round(seconds, 6) for stage, seconds in record.stages.items()}
    log("request", request_id=record.request_id, model=record.model, problem=record.slug, stages=stages, **facts)
