"""Separation: the authors' nuclei, every odd input, and the same answer from every path."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.nuclei import hover
from app.nuclei.errors import ArtifactInvalid
from app.nuclei.hover import NATIVE, PAPER, OperatingPoint, separate
from app.nuclei.instances import describe, tidy
from app.nuclei.jit import HAVE_NUMBA
from app.nuclei.metrics import panoptic
from app.nuclei.runs import label_runs
from app.nuclei.targets import hv_targets
from app.nuclei.types import Float32, Int32
from tests.conftest import PROJECT
from tests.drawn import draw_tissue, label_ink

POINTS = pytest.mark.parametrize("point", [PAPER, NATIVE], ids=["paper", "native"])
GOLDEN = [
    "00_glas_10_256",
    "01_dpath_33_256",
    "02_consep_10_256",
    "03_dpath_48_256",
    "04_glas_3_256",
    "05_dpath_65_512",
]


def golden_pair(root: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(root / "separation" / f"{name}.npz") as file:
        return dict(file)


def random_maps(height: int, width: int, seed: int) -> tuple[Float32, Float32]:
    """Blobs of noise, as smooth as a network's maps."""
    import cv2

    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height + 40, width + 40, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)[20:-20, 20:-20] * 12
    return np.clip(0.5 + smooth[..., 0], 0, 1), np.clip(smooth[..., 1:], -1, 1)


def best_iou(reference: Int32, labels: Int32) -> np.ndarray:
    """Of each reference instance with the label it shares most with."""
    joint = np.zeros((reference.max() + 1, labels.max() + 1))
    np.add.at(joint, (reference, labels), 1)
    union = joint.sum(axis=1)[:, None] + joint.sum(axis=0) - joint
    return (joint / union)[1:, 1:].max(axis=1)


@pytest.mark.parametrize("name", GOLDEN)
def test_paper_mode_finds_the_nuclei_of_the_authors(golden_root, name):
    pair = golden_pair(golden_root, name)
    reference = pair["reference_instances"].astype(np.int32)
    labels = separate(pair["np_prob"], pair["hv"], PAPER)
    assert (best_iou(reference, labels) > 0.9).mean() >= 0.99


@pytest.mark.parametrize("name", GOLDEN)
def test_paper_mode_scores_as_the_authors_do_against_truth(golden_root, name):
    pair = golden_pair(golden_root, name)
    ours = panoptic(pair["truth_instances"], separate(pair["np_prob"], pair["hv"], PAPER))
    assert abs(ours.pq - panoptic(pair["truth_instances"], pair["reference_instances"]).pq) <= 0.001


@POINTS
@pytest.mark.parametrize("name", GOLDEN)
def test_kernels_and_libraries_agree_to_the_pixel_on_real_maps(golden_root, name, point):
    pair = golden_pair(golden_root, name)
    maps = pair["np_prob"].astype(np.float32), pair["hv"].astype(np.float32)
    np.testing.assert_array_equal(hover._separated(*maps, point, True)[0], hover._separated(*maps, point, False)[0])


@POINTS
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 999), levels=st.sampled_from([3, 1000]))
def test_kernels_and_libraries_agree_on_random_maps(point, height, width, seed, levels):
    maps = [np.round(m * levels) / np.float32(levels) for m in random_maps(height, width, seed)]
    np.testing.assert_array_equal(hover._separated(*maps, point, True)[0], hover._separated(*maps, point, False)[0])


@POINTS
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 999))
def test_labels_are_dense_in_reading_order_and_inside_the_mask(point, height, width, seed):
    np_prob, hv = random_maps(height, width, seed)
    labels = separate(np_prob, hv, point)
    seen = list(dict.fromkeys(labels[labels > 0].tolist()))
    assert labels.dtype == np.int32
    assert seen == list(range(1, labels.max() + 1))
    assert point.enlarge > 1 or not labels[np_prob < 0.5].any()


@POINTS
def test_memory_layout_does_not_matter(point):
    np_prob, hv = random_maps(61, 83, 1)
    planes_first = np.ascontiguousarray(hv.transpose(2, 0, 1)).transpose(1, 2, 0)
    backward = np.ascontiguousarray(np_prob[::-1, ::-1])[::-1, ::-1]
    expected = separate(np_prob, hv, point)
    np.testing.assert_array_equal(separate(np.asfortranarray(np_prob), planes_first, point), expected)
    np.testing.assert_array_equal(separate(backward, np.asfortranarray(hv), point), expected)


@POINTS
def test_half_precision_maps_give_the_nuclei_of_the_same_values_in_single(point):
    half = [m.astype(np.float16) for m in random_maps(61, 83, 2)]
    single = [m.astype(np.float32) for m in half]
    np.testing.assert_array_equal(separate(*half, point), separate(*single, point))


@POINTS
def test_threads_do_not_disturb_each_other(point):
    maps = [random_maps(90 + 5 * seed, 120 - 7 * seed, seed) for seed in range(8)]
    alone = [separate(*m, point) for m in maps]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda m: separate(*m, point), maps * 4))
    assert all((a == b).all() for a, b in zip(alone * 4, together, strict=True))


@POINTS
def test_inputs_are_left_as_they_were(point):
    maps = random_maps(40, 50, 3)
    before = [m.copy() for m in maps]
    separate(*maps, point)
    assert all((a == b).all() for a, b in zip(maps, before, strict=True))


@POINTS
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (1, 1), (1, 9), (9, 1), (2, 2), (31, 33)])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1.0, -0.3])
def test_constant_offsets_give_no_nuclei_at_any_size(point, shape, probability, offset):
    labels = separate(np.full(shape, probability, np.float32), np.full((*shape, 2), offset, np.float32), point)
    np.testing.assert_array_equal(labels, np.zeros(shape, np.int32))


@POINTS
def test_offsets_that_change_along_one_axis_alone_give_no_nuclei_in_paper_mode(point):
    hv = np.zeros((64, 64, 2), np.float32)
    hv[..., 0] = hv[..., 1] = np.sin(np.arange(64) / 3, dtype=np.float32)[:, None] + 5
    assert point is NATIVE or not separate(np.ones((64, 64), np.float32), hv, point).any()


@POINTS
def test_a_nucleus_that_fills_the_image_is_kept(point):
    instance = np.ones((24, 24), np.int32)
    labels = separate(instance.astype(np.float32), hv_targets(instance), point)
    assert labels.max() == 1
    assert (labels == 1).mean() > 0.9


@POINTS
def test_nothing_predicted_is_nothing_found(point):
    assert not separate(np.zeros((40, 40), np.float32), random_maps(40, 40, 5)[1], point).any()


@POINTS
def test_offsets_beyond_one_are_taken_as_they_are(point):
    instance = label_ink(draw_tissue(96, 96))
    labels = separate((instance > 0).astype(np.float32), hv_targets(instance) * np.float32(1.5), point)
    assert labels.max() == instance.max()


@POINTS
@pytest.mark.parametrize("shape", [(96, 96), (95, 121)])
def test_targets_then_separation_give_the_same_nuclei_back(point, shape):
    instance = label_ink(draw_tissue(*shape, seed=3))
    labels = separate((instance > 0).astype(np.float32), hv_targets(instance), point)
    assert labels.max() == instance.max()
    assert best_iou(instance, labels).min() > 0.85


@POINTS
def test_touching_discs_are_told_apart(point):
    rows, cols = np.mgrid[:40, :60]
    left, right = np.hypot(rows - 20, cols - 18) < 12, np.hypot(rows - 20, cols - 40) < 12
    instance = np.where(left, 1, np.where(right, 2, 0)).astype(np.int32)
    labels = separate((instance > 0).astype(np.float32), hv_targets(instance), point)
    assert best_iou(instance, labels).min() > 0.85


def test_native_mode_does_not_depend_on_how_the_image_was_cut():
    np_prob, hv = random_maps(160, 160, 7)
    np_prob[:, 76:84], np_prob[76:84] = 0, 0  # no nucleus crosses the cut; the filters' reach is inside
    whole = separate(np_prob, hv, NATIVE)
    corner = separate(np_prob[:80, :80], hv[:80, :80], NATIVE)
    assert panoptic(whole[:76, :76], corner[:76, :76]).pq == pytest.approx(1, abs=1e-6)


def test_a_flood_shares_a_plateau_first_in_first_out():
    from app.nuclei.flood import flood

    mask, markers = np.ones((3, 9), np.uint8), np.zeros((3, 9), np.uint8)
    markers[1, [0, 8]] = 1
    for compiled in (True, False):
        out, _ = flood(
            mask, markers, np.zeros((3, 9), np.uint16), step=1, smallest_marker=1, smallest_object=1, compiled=compiled
        )
        np.testing.assert_array_equal(out[1], [2, 2, 2, 2, 2, 1, 1, 1, 1] if out[0, 8] == 1 else [1] * 5 + [2] * 4)


@pytest.mark.skipif(not HAVE_NUMBA, reason="numba is not installed")
@POINTS
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 140), seed=st.integers(0, 999))
def test_the_runs_that_come_with_a_map_are_those_one_finds_in_it(point, height, width, seed):
    labels, found = hover.separated(*random_maps(height, width, seed), point)
    handed, most = [column.copy() for column in found[0]], found[1]
    sought, largest = label_runs(labels)
    assert most == largest == labels.max()
    for one, other in zip(handed, sought, strict=True):
        np.testing.assert_array_equal(one, other)


@POINTS
def test_the_point_survives_a_manifest(point):
    import json

    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict()))) == point


@pytest.mark.parametrize(
    "change",
    [
        {"sobel": 7},
        {"enlarge": 3},
        {"enlarge": True},
        {"sobel_taps": 8},
        {"sobel_taps": "7"},
        {"opening_shape": "star"},
        {"energy_bits": 12},
        {"hv_scale": [0.1, 0.2]},
        {"hv_scale": [-0.1]},
        {"nucleus_threshold": float("nan")},
    ],
)
def test_a_manifest_with_an_unknown_or_impossible_constant_is_refused(change):
    with pytest.raises(ArtifactInvalid, match=next(iter(change))):
        OperatingPoint.from_dict({**NATIVE.to_dict(), **change})


def test_a_manifest_without_a_constant_is_refused():
    values = NATIVE.to_dict()
    del values["sobel_taps"]
    with pytest.raises(ArtifactInvalid, match="sobel_taps"):
        OperatingPoint.from_dict(values)


def test_maps_of_different_size_are_refused():
    with pytest.raises(ValueError, match="different size"):
        separate(np.zeros((4, 4), np.float32), np.zeros((4, 5, 2), np.float32), NATIVE)


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import numpy as np
from app.nuclei import hover, instances, jit
assert not jit.HAVE_NUMBA
hover.warm_up()
maps = np.load(sys.argv[1])
found = [instances.tidy(hover.separate(maps["np_prob"], maps["hv"], p))[0] for p in (hover.PAPER, hover.NATIVE)]
rings = instances.describe(found[0], np.ones((*found[0].shape, 7), np.float32)).rings.points
np.savez(sys.argv[2], paper=found[0], native=found[1], rings=rings)
"""


def test_without_numba_the_nuclei_and_rings_are_the_same(tmp_path):
    np_prob, hv = random_maps(80, 90, 11)
    np.savez(tmp_path / "maps.npz", np_prob=np_prob, hv=hv)
    command = [sys.executable, "-c", WITHOUT_NUMBA, str(tmp_path / "maps.npz"), str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)})
    with np.load(tmp_path / "found.npz") as other:
        paper = tidy(separate(np_prob, hv, PAPER))[0]
        np.testing.assert_array_equal(other["paper"], paper)
        np.testing.assert_array_equal(other["native"], tidy(separate(np_prob, hv, NATIVE))[0])
        rings = describe(paper, np.ones((*paper.shape, 7), np.float32)).rings
        np.testing.assert_array_equal(other["rings"], rings.points)


def compiled_signatures() -> int:
    from app.nuclei import flood, flood_queue, jit, landscape, markers, rings, runs, sobel, tally, tidying

    modules = (flood, flood_queue, jit, landscape, markers, rings, runs, sobel, tally, tidying)
    return sum(len(getattr(k, "signatures", [])) for module in modules for k in vars(module).values())


def test_nothing_is_compiled_after_warming_up():
    hover.warm_up()
    before = compiled_signatures()
    for kind in (np.float16, np.float32):
        for order in ("C", "F"):
            for writeable in (True, False):
                maps = [m.astype(kind, order=order) for m in (*random_maps(70, 90, 4), np.ones((70, 90, 7)))]
                for array in maps:
                    array.setflags(write=writeable)
                for point in (PAPER, NATIVE):
                    describe(tidy(separate(*maps[:2], point))[0], maps[2], scale=(2, 1))
    assert compiled_signatures() == before


@pytest.mark.slow
@POINTS
def test_a_large_image_of_ten_thousand_nuclei_keeps_them_all(point):
    instance = label_ink(draw_tissue(4096, 4096, seed=1))
    np_prob, hv = (instance > 0).astype(np.float32), hv_targets(instance)
    labels = tidy(separate(np_prob, hv, point))[0]
    nuclei = describe(labels, np.ones((4096, 4096, 7), np.float32))
    assert len(nuclei) == labels.max() == instance.max() > 10_000
    assert nuclei.area.sum() == np.count_nonzero(labels)
