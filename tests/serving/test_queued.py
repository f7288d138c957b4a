"""A result does not depend on who else is served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from app.nuclei.artifact import load_artifact
from app.nuclei.engine import CPU, OnnxEngine
from app.nuclei.segmenter import Segmenter
from app.nuclei.views import PAPER_VIEWS, predict
from app.serving.calibration import Measured
from app.serving.device import DeviceEngine
from app.serving.enrolment import cost_model
from app.serving.models import Resident
from app.serving.queued import QueuedEngine, bucket_of, buckets_of
from app.serving.runner import Runner
from app.serving.tray import Ticket
from app.serving.work import WorkClass
from tests.drawn import InkEngine, draw_tissue


@pytest.fixture(scope="module")
def artifact():
    return load_artifact("karyon-lite")


@pytest.fixture(params=["drawn", "shipped"])
def resident(request, artifact):
    runner = Runner()
    opener = InkEngine if request.param == "drawn" else partial(OnnxEngine.open, artifact, CPU, 1)
    resident = Resident(artifact, DeviceEngine(opener, runner))
    for bucket in buckets_of(artifact):
        runner.calibrate(bucket, cost_model(Measured(0.01, 0.01, 8), bucket, 1))
    runner.start()
    yield resident, runner
    runner.close()


def queue_for(resident, tenant: str, work_class: WorkClass = WorkClass.INTERACTIVE) -> QueuedEngine:
    resident, runner = resident
    return QueuedEngine(runner, resident, Ticket(tenant, work_class, runner.clock() + 1e6))


def test_maps_are_the_same_alone_and_among_others(resident):
    tissue = np.stack([draw_tissue(256, 256, seed) for seed in range(6)])
    plain = predict(resident[0].engine, tissue[:1], PAPER_VIEWS)
    with ThreadPoolExecutor(6) as threads:
        engines = [queue_for(resident, f"t{i % 2}", list(WorkClass)[i % 2]) for i in range(6)]
        found = list(threads.map(lambda i: predict(engines[i], tissue[[i, 0]], PAPER_VIEWS), range(6)))
    assert max(maps[1:].furthest_from(plain) for maps in found) <= 1e-5


def test_nuclei_are_the_same_alone_and_among_others(resident, artifact):
    image = draw_tissue(300, 255)
    alone = Segmenter(artifact, resident[0].engine).segment(image, profile="accurate")
    with ThreadPoolExecutor(3) as threads:
        queues = [Segmenter(artifact, queue_for(resident, f"t{i}"), batch=64) for i in range(3)]
        found = list(threads.map(lambda one: one.segment(image, profile="accurate"), queues))
    for one in found:
        np.testing.assert_array_equal(one.grid, alone.grid)
        np.testing.assert_array_equal(one.nuclei.type, alone.nuclei.type)


def test_buckets_tell_model_views_and_size(artifact):
    version = f"karyon-lite@{artifact.version}"
    found = {(bucket.model, bucket.views, bucket.patch_size) for bucket in buckets_of(artifact)}
    assert found == {
        (f"{version}/{name}", views, size) for name, views in (("fast", 1), ("accurate", 3)) for size in (256, 512)
    }
    assert bucket_of(artifact, PAPER_VIEWS, 512).label == "karyon-lite/accurate/512"
