"""A service that is used and misused holds nothing afterwards that it did not hold before."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from app.bench.tiles import load_tiles
from tests.benchmarks.loading import service
from tests.benchmarks.soaking import HOLDS, Soaked, leaked, slope_mb_h, soak

SECONDS = 45.0  # half an hour of it is `make soak`
GROWN_MB = 100.0


@pytest.fixture(scope="module")
def soaked() -> Soaked:
    if sys.platform != "linux":
        pytest.skip("what a process holds is read from /proc")
    with service(calibration_s="0", **HOLDS) as server:
        found = anyio.run(soak, server, load_tiles(), SECONDS, 5.0)
    assert server.process.returncode == 0
    return found


def test_it_held_load_of_every_kind(soaked):
    assert soaked.statuses[200] > 10
    assert {413, 415, 422} >= {status for status in soaked.statuses if 400 <= status < 500}


def test_nothing_it_was_sent_was_an_error_of_the_service(soaked):
    assert {status for status in soaked.statuses if status < 200 or status >= 500} <= {503}


@pytest.mark.parametrize("what", ["threads", "files", "processes"])
def test_it_gives_back(soaked, what):
    assert leaked(soaked.before, soaked.after)[what] == 0


def test_it_leaves_no_shared_memory(soaked):
    assert [path for path in soaked.shared if Path(path).exists()] == []


def test_its_memory_stays_bounded(soaked):
    last_third = [size for _, size in soaked.pss[-len(soaked.pss) // 3 :]]
    first_third = [size for _, size in soaked.pss[: len(soaked.pss) // 3]]
    assert min(last_third) - max(first_third) < GROWN_MB * 1e6


def test_slope_ignores_a_single_peak():
    steady = [(60.0 * i, 300_000_000) for i in range(30)]
    assert slope_mb_h([*steady, (1800.0, 900_000_000)]) == 0
    assert slope_mb_h([(60.0 * i, 1_000_000 * i) for i in range(30)]) == pytest.approx(60)
