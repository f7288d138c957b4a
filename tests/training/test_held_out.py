"""What the shipped model does on tissue that it never saw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from app.nuclei import Segmenter, hover, instances, load_artifact, metrics
from app.nuclei.types import HoverMaps, Nuclei
from training.data import lizard
from training.data.sample import Sample

CORE, MARGIN = 160, 64


@pytest.fixture(scope="module")
def held_out(data_root) -> list[tuple[Sample, HoverMaps]]:  # type: ignore[no-untyped-def]
    """The 16 images and their maps, one view."""
    segmenter = Segmenter(load_artifact("karyon-lite"))
    return [(s, segmenter.maps(s.image, "fast")) for s in lizard.read(data_root / "lizard", ["consep"])]


def _bpq(held_out: list[tuple[Sample, HoverMaps]], point: hover.OperatingPoint) -> float:
    return metrics.bpq((s.instance_map, instances.tidy(hover.separate(m.np_prob, m.hv, point))[0]) for s, m in held_out)


def test_the_models_own_point_is_at_least_as_good_as_the_papers(held_out: list[tuple[Sample, HoverMaps]]) -> None:
    native = load_artifact("karyon-lite").manifest.postprocess
    assert _bpq(held_out, native) >= _bpq(held_out, hover.PAPER)


def test_windows_with_margins_give_the_nuclei_of_the_whole(held_out: list[tuple[Sample, HoverMaps]]) -> None:
    point = load_artifact("karyon-lite").manifest.postprocess
    for _, maps in held_out[:6]:
        whole = set(_marks(_nuclei(maps, point), 0, 0))
        parts = [mark for window in _windows(maps, point) for mark in window]
        assert len(parts) == len(set(parts))
        assert len(whole ^ set(parts)) <= 0.005 * len(whole)


def _nuclei(maps: HoverMaps, point: hover.OperatingPoint) -> Nuclei:
    grid = instances.tidy(hover.separate(maps.np_prob, maps.hv, point))[0]
    return instances.describe(grid, maps.type_prob)


def _windows(maps: HoverMaps, point: hover.OperatingPoint) -> Iterator[list[tuple[float, ...]]]:
    """Nuclei of each window whose centroid lies in its core, in pixels of the whole."""
    height, width = maps.np_prob.shape
    for top in range(0, height, CORE):
        for left in range(0, width, CORE):
            row, col = max(top - MARGIN, 0), max(left - MARGIN, 0)
            cut = np.s_[row : top + CORE + MARGIN, col : left + CORE + MARGIN]
            found = _nuclei(HoverMaps(maps.np_prob[cut], maps.hv[cut], maps.type_prob[cut]), point)
            marks = _marks(found, col, row)
            yield [m for m in marks if top <= m[1] < top + CORE and left <= m[0] < left + CORE]


def _marks(nuclei: Nuclei, left: int, top: int) -> list[tuple[float, ...]]:
    """x, y, area and class of each nucleus."""
    at = np.round(nuclei.centroid + np.array([left, top]), 6)
    return [(*xy, area, kind) for xy, area, kind in zip(at.tolist(), nuclei.area, nuclei.type, strict=True)]
