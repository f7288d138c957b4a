"""Patches that run side by side, and what becomes of one that fails."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from app.nuclei import load_artifact
from app.nuclei.artifact import prove
from app.nuclei.engine import OnnxEngine
from app.nuclei.errors import ArtifactDrift
from app.nuclei.lanes import POLITENESS, Lanes
from app.nuclei.types import HoverMaps, UInt8


def brightness(patches: UInt8) -> HoverMaps:
    """Maps that hold each patch's own number."""
    shape = patches.shape[:3]
    level = np.full(shape, patches.flat[0], np.float32)
    return HoverMaps(level, np.stack([level, level], -1), np.stack([level] * 7, -1))


def numbered(count: int) -> UInt8:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_maps_come_in_the_order_of_the_patches(count):
    maps = Lanes.open(3, brightness).predict(numbered(count))
    np.testing.assert_array_equal(maps.np_prob[:, 0, 0], np.arange(count))
    assert maps.hv.shape == (count, 4, 4, 2)


def test_as_many_run_at_once_as_there_are_lanes():
    meeting = threading.Barrier(3)

    def together(patches: UInt8) -> HoverMaps:
        meeting.wait(20)
        return brightness(patches)

    assert len(Lanes.open(3, together).predict(numbered(6)).np_prob) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_lanes_let_other_threads_go_first():
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen = []
    Lanes.open(2, lambda patches: seen.append(priority()) or brightness(patches)).predict(numbered(4))
    assert set(seen) == {min(19, priority() + POLITENESS)}


def test_the_first_fault_is_told_once_no_other_patch_is_running():
    running = []

    def second_fails(patches: UInt8) -> HoverMaps:
        if patches.flat[0] == 1:
            raise MemoryError("patch 1")
        running.append(patches.flat[0])
        threading.Event().wait(0.05)
        running.pop()
        return brightness(patches)

    with pytest.raises(MemoryError, match="patch 1"):
        Lanes.open(2, second_fails).predict(numbered(4))
    assert running == []


@pytest.mark.parametrize(
    ("width", "shares"), [(2, [0, 2, 2, 4]), (3, [0, 2, 3, 3]), (4, [0, 0, 3, 4]), (16, [0, 0, 0, 0])]
)
def test_what_would_leave_more_than_half_of_the_lanes_idle_is_left_to_all_cores(width, shares):
    lanes = Lanes.open(width, brightness)
    assert [lanes.share(count) for count in (1, 2, 3, 4)] == shares


@pytest.fixture(scope="module")
def engine() -> OnnxEngine:
    return OnnxEngine.open(load_artifact("karyon-lite"), threads=2)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_patch_in_a_lane_is_the_same_as_by_all_cores(engine, count):
    patches = np.random.default_rng(count).integers(0, 256, (count, 256, 256, 3), np.uint8)
    wide = replace(engine, lanes=None)
    assert engine.predict(patches).furthest_from(wide.predict(patches)) <= 1e-5


def test_lanes_that_are_ended_say_so_and_run_again(engine):
    patches = np.concatenate([load_artifact("karyon-lite").golden[0]] * 2)
    engine.terminate()
    with pytest.raises(Exception, match="terminate flag"):
        engine.predict(patches)
    engine.resume()
    assert len(engine.predict(patches).np_prob) == 2


def test_a_model_whose_lanes_drift_does_not_prove_itself(engine):
    def drifting(patches: UInt8) -> HoverMaps:
        maps = replace(engine, lanes=None).predict(patches)
        return replace(maps, np_prob=maps.np_prob + np.float32(0.1))

    with pytest.raises(ArtifactDrift, match="golden pair off by 1"):
        prove(replace(engine, lanes=Lanes.open(2, drifting)), load_artifact("karyon-lite"))


def test_giving_memory_back_leaves_lanes_as_they_were(engine):
    engine.shrink()
    assert prove(engine, load_artifact("karyon-lite")) <= load_artifact("karyon-lite").manifest.golden.tolerance


def test_one_core_needs_no_lanes():
    assert OnnxEngine.open(load_artifact("karyon-lite"), threads=1).lanes is None


def test_the_weights_of_a_heavy_model_are_in_memory_once(monkeypatch):
    monkeypatch.setattr("app.nuclei.engine.LIGHT", 1000)
    heavy = OnnxEngine.open(load_artifact("karyon-lite"), threads=2)
    assert (heavy.lanes, heavy.narrow) == (None, ())
