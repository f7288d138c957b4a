"""How does a model in memory become one whose patches can be queued? Its batches are measured, or remembered."""

from __future__ import annotations

from dataclasses import dataclass

from app.nuclei.artifact import Artifact
from app.serving.calibration import Key, Measured, Shelf, measure, timed
from app.serving.costs import CostModel
from app.serving.device import DeviceEngine
from app.serving.models import Resident
from app.serving.queued import buckets_of
from app.serving.rules import CPU_SLICE_S, GPU_SLICE_S
from app.serving.runner import Runner
from app.serving.work import Bucket


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Tells a runner what the batches of new models take.

    Attributes:
        runner: of the device.
        shelf: of earlier measurements.
        budget_s: seconds for all patch sizes of a model; beyond them the runner learns from its batches.
        threads: of the CPU; what was measured with another number does not count.
    """

    runner: Runner
    shelf: Shelf
    budget_s: float
    threads: int

    def enrol(self, resident: Resident) -> None:
        """Measure a model, or remember what was measured, and calibrate its buckets."""
        artifact, engine = resident.artifact, resident.engine
        self.runner.slice_bulk(GPU_SLICE_S if engine.device == "cuda" else CPU_SLICE_S)
        sizes = artifact.manifest.patch_sizes
        measured = {size: self._measured(artifact, engine, size, self.budget_s / len(sizes)) for size in sizes}
        for bucket in buckets_of(artifact):
            members = len(artifact.manifest.members)
            self.runner.calibrate(bucket, cost_model(measured[bucket.patch_size], bucket, members))

    def _measured(self, artifact: Artifact, engine: DeviceEngine, size: int, budget_s: float) -> Measured:
        key: Key = {
            "weights": artifact.sha256,
            "device": engine.provider,
            "precision": engine.precision,
            "runtime": engine.runtime,
            "threads": self.threads,
            "patch_size": size,
        }
        if found := self.shelf.get(key):
            return found
        measured = measure(timed(engine, size), budget_s)
        self.shelf.put(key, measured)
        return measured


def cost_model(measured: Measured, bucket: Bucket, members: int) -> CostModel:
    """What was measured with one view, for all views of a bucket."""
    cost = bucket.cost(members)
    return CostModel(measured.a * bucket.views / cost, measured.b * bucket.views, measured.most * cost)
