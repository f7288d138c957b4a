"""From an image to its nuclei, over an engine that calls dark discs nuclei."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.nuclei import Segmenter, detection, hover, load_artifact, metrics
from app.nuclei.artifact import Artifact
from app.nuclei.errors import InferenceFailed, InvalidImage, InvalidParameter
from app.nuclei.separation import calibrated
from app.nuclei.types import Engine, HoverMaps, Mpp, UInt8
from tests.drawn import draw_tissue, label_ink


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    """The shipped manifest, small patches: margins and seams are then many; tiny nuclei are kept."""
    shipped = load_artifact("karyon-lite")
    manifest = dataclasses.replace(shipped.manifest, patch_sizes=(64, 128), margin=24, postprocess=hover.NATIVE)
    return dataclasses.replace(shipped, manifest=manifest)


@pytest.fixture
def segmenter(artifact: Artifact, ink: Engine) -> Segmenter:
    return Segmenter(artifact, ink)


def _same(found: np.ndarray, truth: np.ndarray) -> bool:
    result = metrics.panoptic(truth, found)
    return result.fp == result.fn == 0 and result.sq > 0.9


@pytest.mark.parametrize("size", [(255, 300), (64, 64), (129, 40), (37, 500)])
def test_every_drawn_nucleus_is_found_once(segmenter: Segmenter, size: tuple[int, int]) -> None:
    image = draw_tissue(*size)
    found = segmenter.segment(image, mpp=0.5)
    assert _same(found.instance_map, label_ink(image))


def test_the_class_of_a_nucleus_is_that_of_its_pixels(segmenter: Segmenter, tissue: UInt8) -> None:
    found = segmenter.segment(tissue, mpp=0.5)
    at = found.nuclei.centroid.astype(int)
    np.testing.assert_array_equal(found.nuclei.type, 1 + tissue[at[:, 1], at[:, 0], 0] % 6)
    assert sum(found.counts.values()) == len(found.nuclei)


@pytest.mark.parametrize("axis", [0, 1], ids=["up-down", "left-right"])
def test_a_flipped_image_gives_flipped_nuclei(segmenter: Segmenter, tissue: UInt8, axis: int) -> None:
    straight = segmenter.segment(tissue, mpp=0.5, profile="accurate")
    flipped = segmenter.segment(np.ascontiguousarray(np.flip(tissue, axis)), mpp=0.5, profile="accurate")
    assert metrics.panoptic(straight.instance_map, np.flip(flipped.instance_map, axis)).pq > 0.97
    assert straight.counts == flipped.counts


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 37), (255, 300)])
def test_an_image_of_any_size_works(segmenter: Segmenter, size: tuple[int, int]) -> None:
    found = segmenter.segment(np.full((*size, 3), 200, np.uint8), mpp=0.5)
    assert (found.instance_map.shape, found.type_map.shape, len(found.nuclei)) == (size, size, 0)
    assert set(found.qc.codes) & {"no_tissue", "no_nuclei_in_tissue"}


@pytest.mark.parametrize("mpp", [0.25, 1.0, 0.7])
def test_coordinates_are_the_callers_whatever_the_scale(segmenter: Segmenter, mpp: float) -> None:
    image = draw_tissue(240, 320, spacing=40)
    found = segmenter.segment(image, mpp=mpp)
    truth = detection.centroids(label_ink(image))[1][:, ::-1] + 0.5
    assert len(found.nuclei) == len(truth)
    distance = np.abs(found.nuclei.centroid[:, None] - truth[None]).max(-1).min(1)
    assert distance.max() < 1.5
    assert found.instance_map.shape == (240, 320)


def test_areas_are_counted_pixels_times_scale(segmenter: Segmenter) -> None:
    found = segmenter.segment(draw_tissue(240, 320, spacing=40), mpp=Mpp(1.0, 0.5))
    scale = (320 / found.grid.shape[1]) * (240 / found.grid.shape[0])
    np.testing.assert_allclose(found.nuclei.area, np.bincount(found.grid.ravel())[1:] * scale)


def test_an_image_near_the_models_scale_is_not_resampled(segmenter: Segmenter, tissue: UInt8) -> None:
    assert segmenter.segment(tissue, mpp=0.499).grid.shape == tissue.shape[:2]


def test_without_mpp_the_models_own_is_taken_with_a_warning(segmenter: Segmenter, tissue: UInt8) -> None:
    found = segmenter.segment(tissue)
    assert (found.mpp.x, found.mpp.source) == (0.5, "model-default")
    assert "mpp_assumed" in found.qc.codes


def test_the_same_image_gives_the_same_nuclei_twice(segmenter: Segmenter, tissue: UInt8) -> None:
    first, second = (segmenter.segment(tissue, mpp=0.5).nuclei for _ in range(2))
    for name in ("id", "type", "class_probs", "centroid", "bbox", "area"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.rings.points, second.rings.points)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_an_mpp_that_is_no_scale_is_refused(segmenter: Segmenter, tissue: UInt8, mpp: float) -> None:
    with pytest.raises(InvalidParameter, match="mpp"):
        segmenter.segment(tissue, mpp=mpp)


def test_an_unknown_profile_is_refused(segmenter: Segmenter, tissue: UInt8) -> None:
    with pytest.raises(InvalidParameter, match="sloppy"):
        segmenter.segment(tissue, mpp=0.5, profile="sloppy")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_what_is_no_rgb_image_is_refused(segmenter: Segmenter, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImage):
        segmenter.segment(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_no_numbers_are_a_failure_and_not_empty_tissue(
    artifact: Artifact, ink: Engine, tissue: UInt8, bad: float
) -> None:
    class Broken:
        def predict(self, patches: UInt8) -> HoverMaps:
            maps = ink.predict(patches)
            maps.hv[0, 3, 3, 0] = bad
            return maps

    with pytest.raises(InferenceFailed, match="not finite"):
        Segmenter(artifact, Broken()).segment(tissue, mpp=0.5)


def test_the_profile_decides_how_many_views_are_run(artifact: Artifact, tissue: UInt8) -> None:
    seen: dict[str, list[str]] = {"fast": [], "accurate": []}
    for profile, stages in seen.items():
        Segmenter(artifact, observe=lambda s, _, to=stages: to.append(s)).segment(tissue, 0.5, profile)  # type: ignore[misc, arg-type]
    assert seen["fast"] == seen["accurate"] == ["resample", "infer", "aggregate", "postprocess"]


def test_how_far_views_disagree_is_measured_where_there_are_several(segmenter: Segmenter, tissue: UInt8) -> None:
    fast, accurate = (segmenter.segment(tissue, mpp=0.5, profile=profile) for profile in ("fast", "accurate"))
    assert "disagreement" not in fast.qc.measures
    assert accurate.qc.measures["disagreement"] == 0  # ink is the same from every side


def test_temperature_keeps_the_winner_and_the_background_pixels() -> None:
    maps = np.random.default_rng(0).dirichlet(np.ones(7), (6, 5)).astype(np.float32)
    where = np.zeros((6, 5), bool)
    where[2:] = True
    soft = calibrated(maps, where, 2.0)
    np.testing.assert_array_equal(soft.argmax(-1), maps.argmax(-1))
    np.testing.assert_array_equal(soft[:2], maps[:2])
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-5)
    assert soft[where].max() < maps[where].max()


def test_a_large_image_is_calibrated_as_each_band_of_it() -> None:
    maps = np.random.default_rng(0).dirichlet(np.ones(7), (600, 3)).astype(np.float32)
    where = np.random.default_rng(1).random((600, 3)) < 0.5
    bands = [calibrated(maps[top : top + 100], where[top : top + 100], 1.6) for top in range(0, 600, 100)]
    np.testing.assert_array_equal(calibrated(maps, where, 1.6), np.concatenate(bands))
