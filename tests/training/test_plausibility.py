"""What bounds of the technical check are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from app.nuclei import Segmenter, load_artifact
from tests.drawn import InkEngine, draw_tissue, label_ink
from training.data.sample import Sample
from training.plausibility import MISSTATED, look, middle, table


@pytest.fixture(scope="module")
def seen():  # type: ignore[no-untyped-def]
    image = draw_tissue(300, 280, spacing=32)
    labels = label_ink(image)
    sample = Sample("drawn", "ink", "drawn", image, labels, np.ones(labels.max() + 1, np.uint8), 0.5)
    return look(Segmenter(load_artifact("karyon-lite"), InkEngine()), [sample])


def test_nuclei_are_as_much_larger_as_the_scale_says(seen) -> None:  # type: ignore[no-untyped-def]
    areas = {one.condition: one.measures["nuclear_area_um2"] for one in seen}
    own, fine, coarse = (areas[name] for name in MISSTATED)
    assert fine == pytest.approx(own / 4, rel=0.3)
    assert coarse == pytest.approx(own * 4, rel=0.3)


def test_the_table_counts_warnings_under_each_condition(seen) -> None:  # type: ignore[no-untyped-def]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(seen).splitlines()[2:]]
    assert [row[0] for row in rows[::2]] == list(MISSTATED)
    told = {one.condition for one in seen if "mpp_implausible" in one.codes}
    assert {row[0] for row in rows if row[1] == "nuclear_area_um2" and row[-1] == "1"} == told
    assert told


def test_a_small_image_is_looked_at_whole() -> None:
    assert middle(np.zeros((100, 400, 3), np.uint8)).shape == (100, 256, 3)
