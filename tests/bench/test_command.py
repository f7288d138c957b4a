"""`karyon bench`: measures a service of its own, or one on this machine, and nothing else."""

from __future__ import annotations

import json
import os

import pytest

from app.bench.processes import holdings
from app.bench.server import BenchRefused, local, own_server
from app.bench.target import served, server_timing
from app.cli import main


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost:8000", "127.0.0.1:8000", "http://[::1]:1"]
)
def test_loopback_is_measured(url):
    assert local(url) == f"http://{url.removeprefix('http://').removesuffix('/v1')}"


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8000", "http://karyon.example", "https://127.0.0.1", "file:///etc", ""]
)
def test_no_other_machine_is_put_under_load(url, capsys):
    assert main(["bench", "--url", url, "--seconds", "1"]) == 2
    assert "karyon: " in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--rate", "0"], ["--seconds", "inf"], ["--callers", "0"], ["--requests", "1.5"]])
def test_a_load_that_is_none_is_wrong_usage(wrong):
    with pytest.raises(SystemExit) as left:
        main(["bench", *wrong])
    assert left.value.code == 2


def test_a_service_that_does_not_start_says_why(tmp_path):
    with pytest.raises(BenchRefused, match="no model called 'nobody'"), own_server(tmp_path, KARYON_MODEL="nobody"):
        pass


def test_stages_are_read_from_the_header():
    assert server_timing("infer;dur=12.50, postprocess;dur=3.00") == {"infer": 12.5, "postprocess": 3.0}
    assert server_timing("") == {}


@pytest.mark.parametrize(
    ("last", "number"), [(b'..."}\n{"done":true,"ok":7,"failed":1}\n', 7), (b'"features":[{"type"', 0), (b"", 0)]
)
def test_a_batch_tells_how_many_were_served_in_its_last_line(last, number):
    assert served(last) == number


def test_a_service_of_its_own_is_measured_and_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KARYON_CALIBRATION_S", "0")
    before = holdings(os.getpid()).processes
    out = tmp_path / "bench.json"
    assert main(["bench", "--seconds", "1", "--rate", "3", "--callers", "2", "--json", str(out)]) == 0
    phases = {phase["name"]: phase for phase in json.loads(out.read_text())["phases"]}
    assert list(phases) == ["alone", "full, 2 callers", "3.0/s"]
    assert phases["full, 2 callers"]["ok"] > 0
    assert "the service adds" in capsys.readouterr().out
    assert holdings(os.getpid()).processes == before
