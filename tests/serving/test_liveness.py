"""A process lives as long as it gets somewhere; one that does not is ended from outside its loop."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest

from app.serving.liveness import Vitals, Watchdog
from tests.serving.benches import Bench, wait_for


@dataclass
class Device:
    """What a runner would say."""

    healthy: bool = True
    stalled: float = 0.0
    longest_s: float = 0.0
    fault: str | None = None
    interrupted: int = 0

    def stalled_s(self) -> float:
        return self.stalled

    def interrupt(self) -> None:
        self.interrupted += 1


def test_an_idle_process_lives_for_ever():
    now = [0.0]
    vitals = Vitals(Device(), hang_s=10, clock=lambda: now[0])
    now[0] = 1e6
    assert vitals.complaint() is None
    vitals.tick()
    assert vitals.complaint() is None


@pytest.mark.parametrize(
    ("device", "silent_s", "lives"),
    [
        (Device(stalled=9), 4, True),
        (Device(stalled=11), 0, False),
        (Device(stalled=11, longest_s=3), 0, True),
        (Device(), 6, False),
        (Device(healthy=False), 0, False),
    ],
    ids=["slow", "hung", "slow batches", "loop stuck", "broken"],
)
def test_life_is_progress(device, silent_s, lives):
    now = [0.0]
    vitals = Vitals(device, hang_s=10, clock=lambda: now[0])
    vitals.tick()
    now[0] = silent_s
    assert (vitals.complaint() is None) == lives


def test_a_hung_run_is_interrupted_and_may_recover():
    bench, ended = Bench(), []
    watchdog = Watchdog(Vitals(bench.runner, hang_s=0.5), ended.append, look_s=0.02)
    watchdog.start()
    with bench.held():
        wait_for(lambda: not bench.runner.stalled_s())  # the engine obeys
    assert bench.submit(7).wait()
    watchdog.stop()
    bench.runner.close()
    assert ended == []


def test_a_broken_device_ends_the_process_with_a_reason():
    done, reasons = threading.Event(), []
    watchdog = Watchdog(Vitals(Device(healthy=False)), lambda reason: (reasons.append(reason), done.set()), 0.01)
    watchdog.start()
    assert done.wait(30)
    assert "broken" in reasons[0]


HANGING = """
import threading, numpy as np
from app.main import end_process
from app.serving.liveness import Vitals, Watchdog
from app.serving.runner import Runner
runner = Runner()
runner.start()
Watchdog(Vitals(runner, hang_s=0.2), end_process, look_s=0.05).start()
runner.do(threading.Event().wait)
"""


def test_a_process_that_hangs_ends_with_status_70():
    assert subprocess.run([sys.executable, "-c", HANGING], timeout=60, check=False).returncode == 70
