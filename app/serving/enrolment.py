"""How does a model in memory become one whose patches can be queued? Its batches are measured, or remembered.

Where a device can lay out and average the views of a batch by itself, that is timed against doing it here, view after
view, and the faster way is kept: on a GPU less has to be copied, on a CPU the flips cost less here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.nuclei.artifact import Artifact
from app.nuclei.views import View
from app.serving.calibration import Key, Measured, Shelf, measure, timed, warm
from app.serving.costs import CostModel
from app.serving.device import DeviceEngine
from app.serving.models import Resident
from app.serving.queued import ONE_VIEW, buckets_of
from app.serving.rules import CPU_SLICE_S, CPU_WATCHED_SHARE, GPU_SLICE_S
from app.serving.runner import Runner
from app.serving.work import Bucket


@dataclass(frozen=True, slots=True)
class Trial:
    """What is timed: patches of a size, the views that are averaged, and whether the device does that."""

    patch_size: int
    views: tuple[View, ...]
    boarded: bool


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Tells a runner what the batches of new models take.

    Attributes:
        runner: of the device.
        shelf: of earlier measurements.
        budget_s: seconds for all trials of a model; beyond them the runner learns from its batches.
        threads: of the CPU; what was measured with another number does not count.
    """

    runner: Runner
    shelf: Shelf
    budget_s: float
    threads: int

    def enrol(self, resident: Resident) -> None:
        """Measure a model, or remember what was measured; choose who averages; calibrate its buckets."""
        artifact, engine = resident.artifact, resident.engine
        if engine.device == "cuda":
            self.runner.slice_bulk(GPU_SLICE_S)
        else:
            self.runner.slice_bulk(CPU_SLICE_S, CPU_WATCHED_SHARE)
        buckets, members = buckets_of(artifact), len(artifact.manifest.members)
        trials = trials_of(buckets.items(), engine.boards)
        measured = {one: self._measured(artifact, engine, one, self.budget_s / len(trials)) for one in trials}
        engine.boarded = engine.boards and device_averages_faster(measured)
        for bucket, views in buckets.items():
            together = Trial(bucket.patch_size, views, True)
            if engine.boarded and together in measured:
                found = measured[together].per(len(views))
            else:
                found = measured[Trial(bucket.patch_size, ONE_VIEW, engine.boards)].in_turn(len(views))
            self.runner.calibrate(bucket, cost_model(found, bucket, members, engine.pads))

    def _measured(self, artifact: Artifact, engine: DeviceEngine, trial: Trial, budget_s: float) -> Measured:
        key: Key = {
            "weights": artifact.sha256,
            "device": engine.provider,
            "precision": engine.precision,
            "runtime": engine.runtime,
            "threads": self.threads,
            "patch_size": trial.patch_size,
            "views": " ".join(view.name for view in trial.views),
            "averaged": "there" if trial.boarded else "here",
        }
        run = timed(engine, trial.patch_size, trial.views, trial.boarded)
        if found := self.shelf.get(key):
            if engine.pads:
                warm(run, found.most)
            return found
        measured = measure(run, budget_s, engine.abreast, engine.pads)
        self.shelf.put(key, measured)
        return measured


def trials_of(buckets: Iterable[tuple[Bucket, tuple[View, ...]]], boards: bool) -> list[Trial]:
    """What has to be timed for some buckets.

    One view of each size; where the device can average (`boards`), also every set of several views, and the largest
    set at the smallest size once more averaged here.
    """
    listed = list(buckets)
    trials = [Trial(bucket.patch_size, ONE_VIEW, boards) for bucket, _ in listed]
    several = [Trial(bucket.patch_size, views, True) for bucket, views in listed if boards and len(views) > 1]
    if several:
        widest = max(several, key=lambda one: (len(one.views), -one.patch_size))
        several.append(Trial(widest.patch_size, widest.views, False))
    return list(dict.fromkeys([*trials, *several]))


def device_averages_faster(measured: dict[Trial, Measured]) -> bool:
    """Whether averaging on the device is faster, where both were timed; True where nothing speaks against it."""
    here = [one for one in measured if len(one.views) > 1 and not one.boarded]
    return all(measured[Trial(one.patch_size, one.views, True)].rate >= measured[one].rate for one in here)


def cost_model(measured: Measured, bucket: Bucket, members: int, pads: bool = False) -> CostModel:
    """What was measured of one view, for all views of a bucket; whether batches are filled up to a power of two."""
    cost = bucket.cost(members)
    a, b = measured.a * bucket.views / cost, measured.b * bucket.views
    return CostModel(a, b, measured.most * cost, cost if pads else 0.0)
