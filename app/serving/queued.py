"""How does one request use a device that it shares with others? By an engine of its own, which queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.nuclei.artifact import Artifact
from app.nuclei.types import HoverMaps, UInt8, combined
from app.nuclei.views import VIEWS, View
from app.serving.desk import Job
from app.serving.models import Resident
from app.serving.runner import Runner
from app.serving.tray import Ticket
from app.serving.work import Bucket

ONE_VIEW = VIEWS[:1]


def bucket_of(artifact: Artifact, views: Sequence[View], patch_size: int) -> Bucket:
    """What patches share a batch with: those of the same size that the same model sees in the same views."""
    manifest = artifact.manifest
    names = (name for name in sorted(manifest.profiles, reverse=True) if manifest.views(name) == tuple(views))
    return Bucket(f"{artifact.name}@{artifact.version}/{next(names, 'one')}", len(views), patch_size)


def buckets_of(artifact: Artifact) -> dict[Bucket, tuple[View, ...]]:
    """Every bucket that requests for a model can fall into, and its views."""
    manifest = artifact.manifest
    seen = [ONE_VIEW, *(manifest.views(name) for name in manifest.profiles)]
    return {bucket_of(artifact, views, size): views for views in seen for size in manifest.patch_sizes}


@dataclass(frozen=True, slots=True)
class QueuedEngine:
    """An `Engine` whose patches wait their turn among those of other requests; used by one thread at a time.

    Attributes:
        runner: of the device.
        resident: the model.
        ticket: tenant, class and deadline of the request.
    """

    runner: Runner
    resident: Resident
    ticket: Ticket

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the device."""
        return self.resident.engine.provider

    @property
    def device(self) -> str:
        """Kind of device: cpu or cuda."""
        return self.resident.engine.device

    @property
    def precision(self) -> str:
        """Type the networks calculate in."""
        return self.resident.engine.precision

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `Engine`."""
        return self.predict_views(patches, ONE_VIEW)

    def predict_views(self, patches: UInt8, views: Sequence[View]) -> HoverMaps:
        """Mean of the maps over several views; each patch waits once for all of them.

        Args:
            patches: (N, P, P, 3).
            views: one, or those of a profile of the model.

        Raises:
            Abandoned: the request was cancelled.
            DeadlineExceeded: it could not be answered in time.
            InferenceFailed, DeviceFault, Draining: it will not be answered.
        """
        artifact, engine = self.resident.artifact, self.resident.engine
        bucket = bucket_of(artifact, views, patches.shape[1])
        job = Job(engine, views, bucket, bucket.cost(len(artifact.manifest.members)))
        asked = self.runner.clock()
        tray = self.runner.submit(self.ticket, job, patches)
        maps = tray.wait()
        self.ticket.waited_s += (tray.began or asked) - asked
        # A lone patch is not copied.
        return combined(maps, np.stack if len(maps) > 1 else lambda arrays: arrays[0][None])
