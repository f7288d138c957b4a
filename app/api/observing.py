"""How does what happens on the device become metrics and log lines?"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from app.api.services import Services
from app.serving.watching import Ran, Watcher
from app.serving.work import WorkClass
from app.telemetry import Metrics, log

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Observer(Watcher):
    """Counts batches as they are done."""

    def __init__(self, metrics: Metrics) -> None:
        """Counts into these metrics."""
        self._metrics = metrics

    def ran(self, ran: Ran) -> None:
        """See `Watcher`."""
        metrics, bucket = self._metrics, ran.batch.bucket.label
        metrics.batch_tiles.labels(bucket).observe(len(ran.batch.items))
        metrics.batch_fill.labels(bucket).observe(min(1.0, ran.batch.cost / ran.limit))
        metrics.batch_padding.labels(bucket).observe(ran.padding)
        if ran.copied_s is not None:
            metrics.stage_seconds.labels("copy", bucket).observe(ran.copied_s)
        metrics.busy_seconds.labels(ran.device).inc(ran.seconds)
        metrics.last_batch.set_to_current_time()
        if ran.splits:
            metrics.oom_splits.labels(bucket).inc(ran.splits)
            log("memory ran out: the batch was halved", logging.WARNING, bucket=bucket, splits=ran.splits)
        if ran.rebuilt:
            metrics.rebuilds.labels(bucket).inc()
            log("memory ran out for one patch: the engine was opened anew", logging.WARNING, bucket=bucket)

    def cancelled(self, queued: int, running: int) -> None:
        """See `Watcher`."""
        self._metrics.cancelled.labels("queued").inc(queued)
        self._metrics.cancelled.labels("running").inc(running)

    def kept_memory(self, error: Exception) -> None:
        """See `Watcher`."""
        log("memory could not be given back", logging.WARNING, error)

    def broke(self, error: BaseException) -> None:
        """See `Watcher`."""
        log("the device or its thread is broken", logging.CRITICAL, error)


def refresh(services: Services) -> None:
    """Bring the gauges up to date, before they are read."""
    metrics, runner = services.metrics, services.runner
    _refresh_queue(services)
    default = services.models.find(services.settings.model)
    device = default.engine.device if default is not None else "cpu"
    metrics.device_healthy.labels(device).set(runner.healthy)
    metrics.memory_used.labels("cpu").set(resident_bytes())
    metrics.memory_limit.labels("cpu").set(limit_bytes())
    if device == "cuda" and (card := services.card.memory()):
        metrics.memory_used.labels(device).set(card.used)
        metrics.memory_limit.labels(device).set(card.total)
    metrics.slots.set(services.slots.count)
    metrics.slots_in_use.set(services.slots.in_use)
    metrics.cache_bytes.set(services.cache.bytes)


def _refresh_queue(services: Services) -> None:
    metrics, runner = services.metrics, services.runner
    labels = {bucket.label for bucket in runner.buckets()}
    queued = {(one, label): (0, 0.0) for one in WorkClass for label in labels}
    for (one, bucket), backlog in runner.ask(lambda scheduler: scheduler.backlog()).items():
        tiles, cost = queued[one, bucket.label]  # versions of a model share a label
        queued[one, bucket.label] = (tiles + backlog.count, cost + backlog.cost)
    for (one, label), (tiles, cost) in queued.items():
        metrics.queue_tiles.labels(one, label).set(tiles)
        metrics.queue_cost.labels(one, label).set(cost)
    for one in WorkClass:
        now = runner.clock()
        running, tenants, oldest = runner.ask(
            lambda s, one=one, now=now: (s.running(one), s.tenants(one), s.oldest_age(one, now))  # type: ignore[misc]
        )
        metrics.running_tiles.labels(one).set(running)
        metrics.queue_tenants.labels(one).set(tenants)
        metrics.queue_oldest.labels(one).set(oldest)
    for label in labels:  # a series that begins at 0 lets a rule see its first step
        metrics.oom_splits.labels(label)
        metrics.rebuilds.labels(label)


def resident_bytes() -> int:
    """Memory that this process holds; 0 where /proc is not there."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def limit_bytes() -> int:
    """Memory that this process may hold: the smaller of the machine's and the control group's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            return min(machine, int(path.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return machine
