"""The command `karyon`: what it writes, and what its exit status says."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from app import cli


@pytest.fixture
def home(onnx_store, monkeypatch, tmp_path, png):
    """A folder with tile.png, where the store's model is dark."""
    monkeypatch.setenv("KARYON_MODEL_STORE", str(onnx_store))
    monkeypatch.setenv("KARYON_MODEL", "dark")
    monkeypatch.setenv("KARYON_THREADS", "1")
    (tmp_path / "tile.png").write_bytes(png)
    return tmp_path


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_geojson_goes_to_standard_output(home, capfdbinary):
    assert run("segment", home / "tile.png", "--mpp", 0.5) == cli.OK
    out, err = capfdbinary.readouterr()
    assert json.loads(out)["summary"]["total"] == 132
    assert b"132 nuclei" in err


def test_the_ending_decides_what_is_written(home, capsys):
    for ending in ("geojson", "csv", "json", "png"):
        assert run("segment", home / "tile.png", "-o", home / f"out.{ending}") == cli.OK
    assert len(json.loads((home / "out.geojson").read_bytes())["features"]) == 132
    assert len((home / "out.csv").read_text().splitlines()) == 133
    assert len(json.loads((home / "out.json").read_bytes())["nuc"]) == 132
    assert Image.open(io.BytesIO((home / "out.png").read_bytes())).width >= 300


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["--mpp", "0"], cli.REFUSED, "0.1 to 2 are accepted"),
        (["--model", "nobody"], cli.MODEL, "no model called"),
        (["--model", "dark@7"], cli.MODEL, "no version"),
        (["--model", "dark@"], cli.MODEL, "no version"),
    ],
)
def test_a_refusal_has_its_own_status_and_the_services_words(home, capsys, words, status, reason):
    assert run("segment", home / "tile.png", *words) == status
    assert reason in capsys.readouterr().err


def test_a_broken_image_and_a_missing_one_are_told_apart(home, capsys):
    (home / "text.png").write_text("no image")
    assert run("segment", home / "text.png") == cli.REFUSED
    assert run("segment", home / "missing.png") == cli.USAGE


@pytest.mark.parametrize("words", [["dance"], ["segment"], ["segment", "a.png", "-o", "a.bmp"], []])
def test_wrong_usage_is_status_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == cli.USAGE


def test_a_misspelt_setting_is_status_2(home, monkeypatch, capsys):
    monkeypatch.setenv("KARYON_MODLE", "dark")
    assert run("models", "list") == cli.USAGE
    assert "KARYON_MODLE" in capsys.readouterr().err


def test_models_are_listed_and_verified(home, capsys):
    assert run("models", "list") == cli.OK
    assert capsys.readouterr().out == "* dark@1  0.5 um/pixel  CC0-1.0\n"
    assert run("models", "verify") == run("models", "verify", "dark") == cli.OK
    assert capsys.readouterr().out.count("golden pair off by 0.0e+00") == 2


def test_a_store_that_is_not_there_or_holds_nothing_is_not_verified(home, monkeypatch, capsys):
    monkeypatch.setenv("KARYON_MODEL_STORE", str(home / "nowhere"))
    assert run("models", "verify") == run("models", "list") == cli.MODEL
    assert capsys.readouterr().err.count("KARYON_MODEL_STORE: there is no folder") == 2
    (home / "nowhere").mkdir()
    assert run("models", "verify") == cli.MODEL
    assert "the store holds no model" in capsys.readouterr().err


@pytest.fixture
def empty_store(home, monkeypatch):
    store = home / "other"
    monkeypatch.setenv("KARYON_MODEL_STORE", str(store))
    return store


def test_an_imported_model_is_listed_and_active(onnx_store, empty_store, capsys):
    assert run("models", "import", onnx_store / "dark" / "1") == cli.OK
    capsys.readouterr()
    assert run("models", "list") == cli.OK
    assert capsys.readouterr().out == "* dark@1  0.5 um/pixel  CC0-1.0\n"
    assert sorted(path.name for path in (empty_store / "dark").iterdir()) == ["1", "ACTIVE"]


def test_a_version_never_changes(onnx_store, empty_store, capsys):
    assert run("models", "import", onnx_store / "dark" / "1") == cli.OK
    assert run("models", "import", onnx_store / "dark" / "1") == cli.MODEL
    assert "a version never changes" in capsys.readouterr().err


def test_a_damaged_folder_is_not_imported(onnx_store, empty_store, home, capsys):
    damaged = home / "damaged"
    damaged.mkdir()
    for path in (onnx_store / "dark" / "1").iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    with (damaged / "golden.npz").open("ab") as file:
        file.write(np.uint8(0).tobytes())
    assert run("models", "import", damaged) == cli.MODEL
    assert not empty_store.exists()


def test_a_folder_that_is_no_model_is_not_imported(empty_store, home, capsys):
    (home / "photos").mkdir()
    assert run("models", "import", home / "photos") == cli.MODEL
    assert capsys.readouterr().err == "karyon: photos is no model folder: it holds no manifest.json\n"
