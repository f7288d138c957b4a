"""How does a slide job use the device that it shares with everybody? As bulk work, in its owner's name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.api.analysis import PATCHES_AT_ONCE, Analysis, Limits
from app.nuclei.errors import Conflict
from app.nuclei.segmenter import Segmenter
from app.nuclei.types import Profile
from app.serving.models import Models, Resident
from app.serving.postprocess import Postprocess, Turn
from app.serving.queued import QueuedEngine
from app.serving.runner import Runner
from app.serving.slots import Slots
from app.serving.tray import Ticket, next_request
from app.serving.work import WorkClass
from app.settings import Settings
from app.slides.analyst import Analyst
from app.slides.jobbook import Job
from app.slides.records import Slide
from app.telemetry import Metrics, Record

PATIENCE_S = 1800.0  # that a window's patches may wait for the device; then it is tried again


@dataclass(frozen=True)
class Analysts:
    """Opens the models of jobs.

    Attributes:
        settings: of the service.
        models: in memory, and in the store.
        runner: of the device.
        slots: bound how many windows and images are separated at once.
        postprocess: separates them.
        metrics: count the seconds of each stage.
    """

    settings: Settings
    models: Models
    runner: Runner
    slots: Slots
    postprocess: Postprocess
    metrics: Metrics

    def __call__(self, job: Job, slide: Slide) -> Analyst:
        """The model of a job: the very weights that it was made for.

        Raises:
            UnknownModel, NotReady: if the model is no longer there, or must not be served.
            Conflict: if other weights have its name now.
        """
        resident = self._resident(job)
        return self.analyst(resident, job.profile or self.profile(resident), job.id, slide.owner or "slides")

    def analyst(self, resident: Resident, profile: Profile, job_id: str, tenant: str) -> Analyst:
        """A model in memory that looks at windows as bulk work of a tenant."""
        tickets = _Tickets(self, resident, profile, job_id, tenant)
        artifact, facts = resident.artifact, self.facts(resident)
        return Analyst(
            artifact,
            profile,
            tickets.segmenter,
            lambda sha256: facts.context(sha256, job_id),
            tickets.cancel,
            lambda found: self.metrics.count_result(found.counts, found.qc.measures, artifact.name),
        )

    def facts(self, resident: Resident) -> Analysis:
        """What is said of a model's results besides their nuclei."""
        settings = self.settings
        limits = Limits(settings.max_pixels, settings.min_mpp, settings.max_mpp)
        return Analysis(resident.artifact, resident.engine, limits, _unobserved, settings.revision)

    def profile(self, resident: Resident) -> Profile:
        """Views that are averaged if nobody says."""
        return self.settings.profile or Segmenter(resident.artifact, resident.engine).default_profile

    def _resident(self, job: Job) -> Resident:
        default = self.models.find(self.settings.model)
        if default is not None and default.artifact.sha256 == job.model_sha256:
            return default
        resident = self.models.get(f"{job.model_name}@{job.model_version}")
        if resident.artifact.sha256 != job.model_sha256:
            raise Conflict("the model store holds other weights under this name than when the job was made")
        return resident


@dataclass(frozen=True)
class _Tickets:
    """The windows of a job that wait for the device."""

    means: Analysts
    resident: Resident
    profile: Profile
    job_id: str
    tenant: str
    _number: int = field(default_factory=next_request)  # all of a job takes one request's turns
    _tickets: dict[int, Ticket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def segmenter(self) -> Iterator[Segmenter]:
        means, record = self.means, Record(self.job_id)
        ticket = Ticket(self.tenant, WorkClass.BULK, means.runner.clock() + PATIENCE_S, self._number)
        with self._lock:
            ticket.cancelled = self._over.is_set()
            self._tickets[id(ticket)] = ticket
        engine = QueuedEngine(means.runner, self.resident, ticket)
        turn = Turn(means.postprocess, means.slots, WorkClass.BULK)
        try:
            yield Segmenter(
                self.resident.artifact,
                engine,
                turn.observing(record.observe),
                PATCHES_AT_ONCE,
                turn,
            )
        finally:
            with self._lock:
                del self._tickets[id(ticket)]
            record.bucket = self._bucket()
            means.metrics.observe_stages(record)

    def cancel(self) -> None:
        with self._lock:
            self._over.set()
            waiting = list(self._tickets.values())
        for ticket in waiting:
            self.means.runner.cancel(ticket)

    def _bucket(self) -> str:
        manifest = self.resident.artifact.manifest
        return f"{manifest.name}/{self.profile}/{max(manifest.patch_sizes)}"


def _unobserved(stage: str, seconds: float) -> None:
    """Nobody watches."""
