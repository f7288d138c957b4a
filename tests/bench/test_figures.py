"""The benchmarks read counters, histograms and recovery as they are meant."""

from __future__ import annotations

import math

import pytest

from app.bench.samples import Answer, Sample
from tests.benchmarks.bench_overload import recovery_s
from tests.benchmarks.loading import counter, entry, histogram_percentile

TEXT = """# HELP nuclei_cancelled_tiles_total patches
nuclei_cancelled_tiles_total{where="queued"} 3.0
nuclei_cancelled_tiles_total{where="running"} 2.0
nuclei_cancelled_tiles_total_created{where="queued"} 99.0
nuclei_up 1.0
"""


def test_a_counter_is_the_sum_of_its_series():
    assert counter(TEXT, "nuclei_cancelled_tiles_total") == 5
    assert counter(TEXT, "nuclei_cancelled_tiles_total", where="running") == 2
    assert (counter(TEXT, "nuclei_up"), counter(TEXT, "nuclei_down")) == (1, 0)


def lags(*counts: int) -> str:
    edges = ("0.001", "0.005", "0.01", "+Inf")
    return "\n".join(f'lag_bucket{{le="{edge}"}} {n}.0' for edge, n in zip(edges, counts, strict=True))


@pytest.mark.parametrize(("q", "value"), [(10, 0.001), (50, 0.003), (90, 0.005), (95, 0.0075), (100, 0.01)])
def test_a_percentile_is_linear_within_its_bucket(q, value):
    before, after = lags(100, 100, 100, 100), lags(110, 190, 200, 200)
    assert histogram_percentile(before, after, "lag", q) == pytest.approx(value)


def test_a_percentile_beyond_the_last_edge_is_infinite():
    assert histogram_percentile(lags(0, 0, 0, 0), lags(1, 1, 1, 10), "lag", 99) == math.inf


def probe(at: float, took: float = 0.1, status: int = 200) -> Sample:
    return Sample(at, at, at + took, Answer(status))


@pytest.mark.parametrize(
    ("probes", "seconds"),
    [
        ([probe(60.2), probe(60.5)], 0.2),
        ([probe(60.2, status=503), probe(60.5, took=2.0), probe(61.0)], 1.0),
        ([probe(61.0), probe(60.5, took=2.0)], 1.0),
        ([probe(60.2), probe(60.5, status=503)], math.inf),
    ],
)
def test_a_service_is_well_from_the_first_request_on_after_which_all_are(probes, seconds):
    assert recovery_s(probes, 60.0, 0.5) == pytest.approx(seconds)


def test_what_could_not_be_measured_is_null():
    assert entry("x", math.nan, "ms", 5.0, None) == {
        "name": "x",
        "value": None,
        "unit": "ms",
        "bar": 5.0,
        "holds": None,
    }
