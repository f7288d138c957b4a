"""`karyon slide` analyses a slide without a server, goes on after an interruption, and says what is wrong."""

from __future__ import annotations

import json
from functools import partial

import pytest
import tifffile

from app import cli
from app.api import inprocess
from app.formats import parquet
from app.nuclei.errors import EngineUnavailable
from app.serving.device import Opener
from tests.drawn import draw_tissue


@pytest.fixture
def karyon(monkeypatch, onnx_store, tmp_path):
    """Run the command with a small model; its exit status."""
    for name, value in {"MODEL_STORE": onnx_store, "MODEL": "dark", "THREADS": 1}.items():
        monkeypatch.setenv(f"KARYON_{name}", str(value))
    tifffile.imwrite(tmp_path / "slide.tif", draw_tissue(900, 1000), tile=(256, 256), photometric="rgb")

    def run(*arguments, out="out.geojson", slide="slide.tif"):
        return cli.main(["slide", str(tmp_path / slide), "-o", str(tmp_path / out), *arguments])

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "out")))


def test_a_slide_becomes_a_file_and_nothing_else_is_left(karyon, tmp_path, capsys):
    assert karyon("--mpp", "0.5") == cli.OK
    written = json.loads((tmp_path / "out.geojson").read_bytes())
    assert written["summary"]["total"] == len(written["features"]) > 500
    assert f"{len(written['features'])} nuclei" in capsys.readouterr().err
    assert names(tmp_path) == ["out.geojson"]


def test_windows_of_any_size_write_the_same_nuclei(karyon, tmp_path):
    for name, size in (("out1.csv", "300"), ("out2.csv", "5000")):
        assert karyon("--mpp", "0.5", "--window", size, out=name) == cli.OK
    one, other = ((tmp_path / name).read_text().splitlines() for name in ("out1.csv", "out2.csv"))
    assert sorted(row.split(",", 4)[1:4] for row in one) == sorted(row.split(",", 4)[1:4] for row in other)


def test_an_interrupted_command_goes_on_where_it_was(karyon, tmp_path, third_interrupted):
    seen = third_interrupted
    assert karyon("--mpp", "0.5", "--window", "300") == cli.INTERRUPTED
    assert names(tmp_path) == [".out.geojson.karyon"]
    assert karyon("--mpp", "0.5", "--window", "300") == cli.OK
    assert names(tmp_path) == ["out.geojson"]
    resumed = len(seen)
    seen[:] = [0] * 3  # from now on nothing interrupts
    assert karyon("--mpp", "0.5", "--window", "300", out="out2.geojson") == cli.OK
    assert resumed == len(seen) - 3 + 1  # the interrupted window alone was begun twice
    first, second = (json.loads((tmp_path / name).read_bytes()) for name in ("out.geojson", "out2.geojson"))
    assert first["features"] == second["features"]


def test_a_form_that_cannot_be_written_is_refused_before_the_work(karyon, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    assert karyon("--mpp", "0.5", out="out.parquet") == cli.REFUSED
    assert "karyon[tables]" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_what_is_wrong_is_said(karyon, tmp_path, capsys):
    assert karyon() == cli.REFUSED
    assert "mpp" in capsys.readouterr().err
    assert karyon("--mpp", "9") == cli.REFUSED
    assert karyon(slide="nothing.tif") == cli.REFUSED
    (tmp_path / "broken.tif").write_bytes((tmp_path / "slide.tif").read_bytes()[:2000])
    assert karyon("--mpp", "0.5", slide="broken.tif") == cli.REFUSED
    for arguments in (["--mpp", "-1"], ["--window", "0"]):
        with pytest.raises(SystemExit, match="2"):
            karyon(*arguments)
    with pytest.raises(SystemExit, match="2"):
        karyon(out="out.png")
    assert names(tmp_path) == []


def test_the_precision_of_the_settings_holds_for_slides_too(karyon, tmp_path, monkeypatch):
    asked = []

    def opened(artifact, provider, threads, precision, memory):
        asked.append((provider, precision, memory))
        raise EngineUnavailable("enough")

    monkeypatch.setenv("KARYON_DEVICE", "cpu")
    monkeypatch.setenv("KARYON_PRECISION", "float32")
    monkeypatch.setenv("KARYON_GPU_MEMORY", str(2**30))
    monkeypatch.setattr(inprocess, "Opener", partial(Opener, open_engine=opened))
    assert karyon("--mpp", "0.5") == cli.MODEL
    assert set(asked) == {("CPUExecutionProvider", "float32", 2**30)}
