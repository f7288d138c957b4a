"""The shipped model on an NVIDIA GPU: the same maps and nuclei as on the CPU, and no silent way back to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from app.nuclei import Segmenter, load_artifact
from app.nuclei.artifact import HALF_TOLERANCE, Artifact, prove
from app.nuclei.engine import CUDA, OnnxEngine
from app.nuclei.views import PAPER_VIEWS
from app.serving.calibration import Shelf
from app.serving.card import Card
from app.serving.device import DeviceEngine, Opener, open_on
from app.serving.enrolment import Enrolment
from app.serving.models import Resident
from app.serving.queued import QueuedEngine, buckets_of
from app.serving.runner import Runner
from app.serving.tray import Ticket
from app.serving.work import WorkClass
from tests.drawn import draw_tissue

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="ONNX Runtime has no CUDA here"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return load_artifact("karyon-lite")


@pytest.fixture(scope="module", params=["float32", "float16"])
def engine(request: pytest.FixtureRequest, artifact: Artifact) -> OnnxEngine:
    return OnnxEngine.open(artifact, CUDA, precision=request.param)


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner()
    runner.start()
    yield runner
    runner.close()


def _patches(count: int, size: int = 256) -> np.ndarray:
    return np.stack([draw_tissue(size, size, seed) for seed in range(count)])


def test_the_gpu_is_taken_and_gives_the_golden_maps(engine: OnnxEngine, artifact: Artifact) -> None:
    assert (engine.provider, engine.device, engine.pads, engine.stages) == (CUDA, "cuda", True, True)
    prove(engine, artifact)


@pytest.mark.parametrize(("count", "size"), [(1, 256), (3, 256), (8, 256), (1, 512)])
def test_maps_are_those_of_the_cpu(engine: OnnxEngine, artifact: Artifact, count: int, size: int) -> None:
    here = OnnxEngine.open(artifact).predict_views(_patches(count, size), PAPER_VIEWS)
    allowed = HALF_TOLERANCE if engine.precision == "float16" else 1e-3
    assert engine.predict_views(_patches(count, size), PAPER_VIEWS).furthest_from(here) < allowed


def test_views_averaged_there_are_those_averaged_here(engine: OnnxEngine) -> None:
    from app.nuclei.views import average

    there = engine.predict_views(_patches(4), PAPER_VIEWS)
    here = average(engine.predict, _patches(4), PAPER_VIEWS)
    assert there.furthest_from(here) < HALF_TOLERANCE
    assert there.ballot is not None
    assert here.ballot is not None
    assert (there.ballot.votes != here.ballot.votes).mean() < 1e-3


def test_nuclei_are_those_of_the_cpu(engine: OnnxEngine, artifact: Artifact) -> None:
    image = draw_tissue(600, 700)
    here, there = (Segmenter(artifact, one).segment(image, profile="accurate") for one in (None, engine))
    assert (here.instance_map == there.instance_map).mean() > 0.999
    assert abs(len(here.nuclei) - len(there.nuclei)) <= 0.01 * len(here.nuclei)


def test_a_run_on_the_gpu_can_be_ended(engine: OnnxEngine) -> None:
    engine.terminate()
    with pytest.raises(Exception, match="terminate flag"):
        engine.predict(_patches(1))
    engine.resume()
    assert len(engine.predict(_patches(1))) == 1


def test_memory_is_given_back(engine: OnnxEngine, artifact: Artifact) -> None:
    engine.predict(_patches(16))
    engine.shrink()
    prove(engine, artifact)


def test_auto_takes_the_gpu_in_half_precision(artifact: Artifact) -> None:
    engine = open_on("auto", artifact, None, Opener())
    assert (getattr(engine, "provider", ""), getattr(engine, "precision", "")) == (CUDA, "float16")


def test_the_cards_memory_is_known(engine: OnnxEngine) -> None:
    pytest.importorskip("pynvml")
    memory = Card().memory()
    assert memory is not None
    assert 0 < memory.used <= memory.total


def test_a_calibrated_gpu_serves_many_at_once_what_it_serves_one(
    artifact: Artifact, runner: Runner, tmp_path: Path
) -> None:
    resident = Resident(artifact, DeviceEngine(lambda: OnnxEngine.open(artifact, CUDA, precision="float16"), runner))
    Enrolment(runner, Shelf(tmp_path), 3.0, 1).enrol(resident)
    assert set(runner.buckets()) == set(buckets_of(artifact))
    assert all(json.loads(kept.read_text())["most"] > 1 for kept in tmp_path.iterdir())  # a GPU gains much from batches
    queue = QueuedEngine(runner, resident, Ticket("t", WorkClass.BULK, runner.clock() + 600))
    many = queue.predict_views(_patches(40), PAPER_VIEWS)
    alone = queue.predict_views(_patches(1), PAPER_VIEWS)
    assert many[:1].furthest_from(alone) < HALF_TOLERANCE
