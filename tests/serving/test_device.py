"""Which engine is opened for a device, and who averages the views of its batches."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from app.nuclei import load_artifact
from app.nuclei.artifact import prove
from app.nuclei.engine import CPU, CUDA
from app.nuclei.errors import ArtifactDrift, EngineUnavailable
from app.nuclei.types import HoverMaps
from app.nuclei.views import PAPER_VIEWS, average
from app.serving.calibration import Measured, Shelf
from app.serving.device import DeviceEngine, Opener, open_on
from app.serving.enrolment import Enrolment, Trial, device_averages_faster, trials_of
from app.serving.models import Resident
from app.serving.queued import ONE_VIEW, buckets_of
from app.serving.runner import Runner


@pytest.fixture(scope="module")
def artifact():
    return load_artifact("karyon-lite")


@dataclass
class Card:
    """A device that gives the golden maps but for an error, and notes who averaged how many patches of which size.

    In larger patches it gives them in every quarter, as it would if they held the golden patch and its mirror images.
    """

    artifact: object
    error: float = 0.0
    error_in_larger: float = 0.0
    precision: str = "float32"
    provider: str = CUDA
    device: str = "cuda"
    boards: bool = True
    pads: bool = True
    ran: list[tuple[str, int, int]] = field(default_factory=list)

    def predict(self, patches):
        self.ran.append(("here", len(patches), patches.shape[1]))
        maps = self.golden()[1]
        rows, times = np.zeros(len(patches), int), patches.shape[1] // maps.np_prob.shape[1]
        np_prob, hv, type_prob = (
            np.tile(m[rows], (1, times, times) + (1,) * (m.ndim - 3)) for m in (maps.np_prob, maps.hv, maps.type_prob)
        )
        error = np.float32(self.error if times == 1 else self.error_in_larger)
        return HoverMaps(np_prob + error, hv, type_prob + error)

    def golden(self):
        if self.precision == "int8":
            return self.artifact.test_pair(self.artifact.manifest.int8.golden)
        return self.artifact.golden

    def predict_views(self, patches, views):
        maps = average(self.predict, patches, views)
        del self.ran[-len(views) :]
        self.ran.append(("there", len(patches), patches.shape[1]))
        return maps


def opener(errors, opened, precision="auto", warn=lambda _: None):
    def open_engine(artifact, provider, threads, precision, memory):
        opened.append((provider, precision, memory))
        return Card(artifact, errors[precision], precision=precision)

    return Opener(precision, 2**30, open_engine, warn)


@pytest.mark.parametrize(
    ("half_is_off", "asked", "taken"),
    [
        (0.01, "auto", ["float16"]),
        (0.2, "auto", ["float16", "float32"]),
        (0.2, "float32", ["float32"]),
        (0.2, "float16", ["float16"]),
    ],
)
def test_a_gpu_calculates_in_half_precision_if_the_golden_maps_come_out(artifact, half_is_off, asked, taken):
    opened = []
    engine = opener({"float16": half_is_off, "float32": 0.0}, opened, asked)(artifact, CUDA, 1)
    assert opened == [(CUDA, precision, 2**30) for precision in taken]
    assert engine.precision == taken[-1]


@pytest.mark.parametrize("off", [0.2, np.nan])
def test_a_gpu_whose_half_precision_fails_in_larger_patches_alone_calculates_in_float32(artifact, off):
    def open_engine(artifact, provider, threads, precision, memory):
        return Card(artifact, 0.0, off if precision == "float16" else 0.0, precision)

    assert Opener("auto", None, open_engine)(artifact, CUDA, 1).precision == "float32"
    with pytest.raises(ArtifactDrift, match="golden pair in a patch of 512 pixels in float16 off by"):
        prove(Opener("float16", None, open_engine)(artifact, CUDA, 1), artifact)


def test_a_gpu_whose_runtime_refuses_a_network_in_half_precision_calculates_in_float32(artifact):
    def open_engine(artifact, provider, threads, precision, memory):
        if precision == "float16":
            raise EngineUnavailable("This is an invalid model")
        return Card(artifact)

    assert Opener("auto", None, open_engine)(artifact, CUDA, 1).precision == "float32"
    with pytest.raises(EngineUnavailable, match="invalid model"):
        Opener("float16", None, open_engine)(artifact, CUDA, 1)


@pytest.mark.parametrize("asked", ["auto", "float16", "float32"])
def test_a_cpu_calculates_in_float32_unless_int8_is_asked(artifact, asked):
    opened = []
    opener({"float32": 0.0}, opened, asked)(artifact, CPU, 1)
    assert opened == [(CPU, "float32", 2**30)]


def test_a_cpu_calculates_in_int8_if_asked_where_the_model_has_graphs_for_it(artifact):
    opened = []
    asked = opener({"float32": 0.0, "int8": 0.0}, opened, "int8")
    asked(artifact, CPU, 1)
    asked(replace(artifact, manifest=replace(artifact.manifest, int8=None)), CPU, 1)
    assert [precision for _, precision, _ in opened] == ["int8", "float32"]


def test_a_cpu_that_does_not_give_the_golden_maps_in_int8_calculates_in_float32_and_says_why(artifact):
    opened, told = [], []
    engine = opener({"float32": 0.0, "int8": 0.01}, opened, "int8", told.append)(artifact, CPU, 1)
    assert engine.precision == "float32"
    assert [precision for _, precision, _ in opened] == ["int8", "float32"]
    assert re.fullmatch(r"not in int8: karyon-lite@\d+: golden pair in int8 off by 1.0e-02, allowed 2.0e-03", *told)


def test_a_gpu_that_is_asked_for_int8_calculates_as_by_itself(artifact):
    opened = []
    assert opener({"float16": 0.01, "float32": 0.0}, opened, "int8")(artifact, CUDA, 1).precision == "float16"


def test_without_a_gpu_auto_takes_the_cpu_and_cuda_refuses(artifact):
    assert open_on("auto", artifact, 1, Opener()).provider == CPU
    with pytest.raises(EngineUnavailable, match="CUDA"):
        open_on("cuda", artifact, 1, Opener())


@pytest.fixture
def runner():
    runner = Runner()
    runner.start()
    yield runner
    runner.close()


def test_the_views_of_a_small_patch_are_timed_both_ways_where_the_device_can_average(artifact):
    trials = trials_of(buckets_of(artifact).items(), boards=True)
    assert set(trials) == {
        *(Trial(size, views, True) for size in (256, 512) for views in (ONE_VIEW, PAPER_VIEWS)),
        Trial(256, PAPER_VIEWS, False),
    }
    assert trials_of(buckets_of(artifact).items(), boards=False) == [Trial(s, ONE_VIEW, False) for s in (256, 512)]


@pytest.mark.parametrize(("there_s", "faster"), [(0.05, True), (0.2, False)])
def test_the_faster_way_is_kept(there_s, faster):
    trial = Trial(256, PAPER_VIEWS, True)
    here, there = Measured(0.1, 0.0, 4), Measured(there_s, 0.0, 4)
    assert device_averages_faster({trial: there, replace(trial, boarded=False): here}) is faster


def test_measurements_are_kept_for_each_way_and_sizes_are_warmed_when_they_are_remembered(artifact, runner, tmp_path):
    card = Card(artifact)
    resident = Resident(artifact, DeviceEngine(lambda: card, runner))
    Enrolment(runner, Shelf(tmp_path), 0.0, 1).enrol(resident)
    assert len(list(tmp_path.iterdir())) == 5
    card.ran.clear()
    Enrolment(runner, Shelf(tmp_path), 0.0, 1).enrol(resident)
    assert {("there", 1, 256), ("there", 1, 512)} <= set(card.ran)


def test_every_bucket_of_a_device_that_averages_is_calibrated(artifact, runner):
    resident = Resident(artifact, DeviceEngine(lambda: Card(artifact), runner))
    Enrolment(runner, Shelf(None), 0.0, 1).enrol(resident)
    assert set(runner.buckets()) == set(buckets_of(artifact))


@dataclass
class SlowToPrepare(Card):
    """A device that takes a while over the first batch of every size and number of views."""

    prepared: set[tuple[int, ...]] = field(default_factory=set)

    def predict_views(self, patches, views):
        if (what := (len(views), *patches.shape)) not in self.prepared:
            self.prepared.add(what)
            time.sleep(0.1)
        return super().predict_views(patches, views)


def test_batches_of_several_patches_are_tried_on_a_gpu_that_prepares_itself_for_longer_than_the_budget(
    artifact, runner
):
    card = SlowToPrepare(artifact)
    Enrolment(runner, Shelf(None), 0.5, 1).enrol(Resident(artifact, DeviceEngine(lambda: card, runner)))
    assert {("there", 2, 256), ("there", 2, 512)} <= set(card.ran)


def test_what_several_views_took_together_is_divided_among_them():
    found = Measured(0.3, 0.06, 8).per(3)
    assert (found.a, found.b, found.most) == (pytest.approx(0.1), pytest.approx(0.02), 8)
