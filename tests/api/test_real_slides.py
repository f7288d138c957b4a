"""Real slides from end to end, as every kind of file: `make test-slides`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app import cli
from app.nuclei import Segmenter, load_artifact
from app.slides.opening import open_source

pytestmark = pytest.mark.slow
CLOSE = 0.005  # nuclei that may come or go with the windows, of all


@pytest.fixture(scope="module")
def slides(data_root: Path) -> Path:
    if not (data_root / "slides").is_dir():
        pytest.skip("no slides in KARYON_DATA")
    return data_root / "slides"


def analysed(slide: Path, out: Path, *arguments: str) -> dict[str, Any]:
    assert cli.main(["slide", str(slide), "-o", str(out), *arguments]) == cli.OK
    found: dict[str, Any] = json.loads(out.read_bytes())
    out.unlink()
    return found


def test_an_aperio_slide_has_the_nuclei_of_one_image_whatever_the_windows(slides, tmp_path):
    with open_source(slides / "CMU-1-Small-Region.svs") as source:
        pixels, mpp = source.read(0, 0, 0, source.levels[0].width, source.levels[0].height), source.mpp[0]
    whole = Segmenter(load_artifact("karyon-lite")).segment(pixels, mpp, "fast")
    for window in ("400", "1280", "10000"):
        found = analysed(slides / "CMU-1-Small-Region.svs", tmp_path / "out.geojson", "--window", window)
        counts = found["summary"]["counts"]
        assert found["summary"]["total"] == pytest.approx(len(whole.nuclei), rel=CLOSE)
        assert sum(abs(counts[name] - n) for name, n in whole.counts.items()) <= 2 * CLOSE * len(whole.nuclei)
        assert len({feature["id"] for feature in found["features"]}) == found["summary"]["total"]


def test_a_slide_without_scale_is_refused_and_done_once_it_is_given(slides, tmp_path, capsys):
    slide = slides / "TCGA-CR-7395-01A-01-TS1.svs"
    assert cli.main(["slide", str(slide), "-o", str(tmp_path / "out.geojson")]) == cli.REFUSED
    assert "mpp" in capsys.readouterr().err
    found = analysed(slide, tmp_path / "out.geojson", "--mpp", "0.5")  # it is coarser: most nuclei are too small to see
    assert found["coordinate_space"]["mpp_source"] == "request"
    assert found["summary"]["total"] == len(found["features"]) > 0
    corners = np.concatenate([feature["geometry"]["coordinates"][0] for feature in found["features"]])
    assert corners.min() >= 0
    assert (corners.max(0) <= (4443, 3567)).all()


def test_a_folder_of_dicom_files_is_a_slide(slides, tmp_path):
    found = analysed(slides / "dicom_cmu1_small", tmp_path / "out.geojson")
    assert found["coordinate_space"]["mpp_source"] == "file"
    assert found["summary"]["total"] > 100


def test_a_large_plain_image_is_a_slide(slides, tmp_path):
    with open_source(slides / "TCGA-CR-7395-01A-01-TS1.svs") as source:
        pixels = source.read(0, 0, 0, 4443, 3567)
    Image.fromarray(pixels).save(tmp_path / "plain.png", compress_level=1)
    plain = analysed(tmp_path / "plain.png", tmp_path / "out.geojson", "--mpp", "0.5")
    slide = analysed(slides / "TCGA-CR-7395-01A-01-TS1.svs", tmp_path / "out.geojson", "--mpp", "0.5")
    assert plain["summary"]["total"] == pytest.approx(slide["summary"]["total"], rel=CLOSE)
