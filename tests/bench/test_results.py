"""The list of figures that `make bench` leaves."""

from __future__ import annotations

from tests.benchmarks.results import complete, merge


def entry(name: str, value: float | None) -> dict[str, object]:
    return {"name": name, "value": value, "unit": "u", "bar": None, "holds": None}


def test_a_figure_that_is_measured_again_takes_the_place_of_the_former(tmp_path):
    merge([entry("a", 1.0), entry("b", 2.0)], tmp_path / "results.json")
    merge([entry("a", 3.0)], tmp_path / "results.json")
    assert [(e["name"], e["value"]) for e in complete(tmp_path / "results.json")][:2] == [("b", 2.0), ("a", 3.0)]


def test_the_soak_is_in_the_list_before_it_was_run_and_stays_as_measured_after(tmp_path):
    path = tmp_path / "results.json"
    assert [e["value"] for e in complete(path) if e["name"] == "soak_rss_slope_mb_h"] == [None]
    merge([entry("soak_rss_slope_mb_h", 4.0)], path)
    assert [e["value"] for e in complete(path) if e["name"] == "soak_rss_slope_mb_h"] == [4.0]
