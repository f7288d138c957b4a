"""What bounds of the technical check are drawn from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from app.nuclei import Segmenter, load_artifact, qc
from app.nuclei.artifact import open_folder
from app.nuclei.types import UInt8
from tests.drawn import InkEngine, draw_tissue, label_ink
from training.data.sample import Sample
from training.plausibility import COARSE, FINE, RIGHT, Seen, bounds, give, look, squares_of, table


@pytest.fixture(scope="module")
def seen() -> list[Seen]:
    image = draw_tissue(300, 280, spacing=32)
    labels = label_ink(image)
    sample = Sample("drawn", "ink", "drawn", image, labels, np.ones(labels.max() + 1, np.uint8), 0.5)
    return look(Segmenter(load_artifact("karyon-lite"), InkEngine()), [sample])


def test_nuclei_are_as_much_larger_as_the_scale_says(seen: list[Seen]) -> None:
    areas = {one.condition: one.measures["nuclear_area_um2"] for one in reversed(seen)}  # the middle square comes first
    assert areas[FINE] == pytest.approx(areas[RIGHT] / 4, rel=0.3)
    assert areas[COARSE] == pytest.approx(areas[RIGHT] * 4, rel=0.3)


def test_bounds_lie_beyond_all_that_was_seen_and_tell_wrong_scales(seen: list[Seen]) -> None:
    drawn = bounds(seen)
    assert drawn["nuclear_area_um2.low.fail"] < drawn["nuclear_area_um2.low.warn"]
    assert drawn["nuclear_area_um2.high.warn"] < drawn["nuclear_area_um2.high.fail"]
    told = {one.condition for one in seen if qc.judge(one.measures, {**qc.DEFAULT_THRESHOLDS, **drawn})}
    assert told == {FINE, COARSE}


def test_the_table_counts_the_warnings(seen: list[Seen]) -> None:
    rows = [
        line.strip("| ").split(" | ") for line in table(seen, qc.DEFAULT_THRESHOLDS | bounds(seen)).splitlines()[2:]
    ]
    warned = {(row[0], row[2]): (int(row[3]), int(row[-1])) for row in rows if row[1] == "fast"}
    assert warned[COARSE, "nuclear_area_um2"] == (1, 1)
    assert warned[RIGHT, "nuclear_area_um2"] == (6, 0)


def test_a_model_is_given_its_bounds_and_judges_by_them(tmp_path: Path, tissue: UInt8) -> None:
    shipped = load_artifact("karyon-lite")
    shutil.copytree(shipped.folder, tmp_path / "model")
    give(open_folder(tmp_path / "model"), {"nuclear_area_um2.high.warn": 1.0})
    strict = Segmenter(open_folder(tmp_path / "model"), InkEngine()).segment(tissue, 0.5)
    assert "mpp_implausible" in strict.qc.codes
    assert "mpp_implausible" not in Segmenter(shipped, InkEngine()).segment(tissue, 0.5).qc.codes


@pytest.mark.parametrize(
    ("shape", "sizes"), [((100, 400), [256] * 3 + [400]), ((256, 256), [256]), ((600, 600), [256] * 5 + [512])]
)
def test_squares_are_the_middle_and_the_corners_each_once(shape: tuple[int, int], sizes: list[int]) -> None:
    squares = list(squares_of(np.zeros((*shape, 3), np.uint8)))
    assert [square.shape[1] for square in squares] == sizes
