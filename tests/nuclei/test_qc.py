from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage import data

from app.nuclei import Segmenter, instances, load_artifact, qc
from app.nuclei.types import Ballot, Mpp, QualityReport
from training.plausibility import squares_of

HALF = Mpp(0.5, 0.5)


def coloured(colour, height=64, width=64):
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture(scope="module")
def stained():
    """Pink stroma with a fine weave, and purple discs: the colours and the detail of H&E."""
    rng = np.random.default_rng(0)
    image = np.full((256, 256, 3), (232, 180, 212), np.uint8)
    for _ in range(120):
        centre = tuple(int(v) for v in rng.integers(0, 256, 2))
        cv2.circle(image, centre, int(rng.integers(4, 9)), (110, 70, 150), -1)
    return np.clip(image + rng.normal(0, 6, image.shape), 1, 254).astype(np.uint8)


@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
@settings(max_examples=60, deadline=None)
def test_any_image_has_finite_measures_and_an_explanation_if_it_has_no_nuclei(image):
    report = qc.assess(image, 0, HALF)
    assert all(math.isfinite(value) for value in report.measures.values())
    assert len({"no_tissue", "no_nuclei_in_tissue"} & set(report.codes)) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (513, 511)])
@pytest.mark.parametrize("grey", [0, 128, 240, 255])
def test_an_image_of_one_grey_has_no_tissue(grey, size):
    assert "no_tissue" in qc.assess(coloured([grey] * 3, *size), 0, HALF).codes


def test_blank_glass_has_no_other_fault():
    report = qc.assess(coloured((243, 242, 244)), 0, HALF)
    assert report == QualityReport(
        "warn", ("no_tissue",), {"tissue_fraction": 0.0, "black_fraction": 0.0, "pen_fraction": 0.0}
    )


def test_tissue_without_nuclei_is_said_to_be_just_that(stained):
    assert qc.assess(stained, 0, HALF).codes == ("no_nuclei_in_tissue",)


def test_good_tissue_passes_with_every_measure(stained):
    report = qc.assess(stained, 120, HALF, found={"nuclear_area_um2": 20.0, "disagreement": 0.1})
    assert (report.verdict, report.codes) == ("pass", ())
    assert {rule.rpartition(".")[0].rpartition(".")[0] for rule in qc.DEFAULT_THRESHOLDS} == set(report.measures)


def test_the_tissue_mask_is_where_the_stain_is(stained):
    half = stained.copy()
    half[:, 128:] = 243
    mask = qc.tissue_mask(half)
    assert qc.tissue_fraction(half) == mask.mean()
    assert mask[:, :128].mean() > 0.99
    assert not mask[:, 128:].any()


def test_a_scale_that_nobody_stated_is_a_warning(stained):
    assert qc.assess(stained, 9, Mpp(0.5, 0.5, "model-default")).codes == ("mpp_assumed",)


def test_two_scales_that_disagree_are_a_warning(stained):
    assert qc.assess(stained, 9, Mpp(0.5, 0.5, "request", conflict=True)).codes == ("mpp_conflict",)


@pytest.mark.parametrize(("area", "verdict"), [(5, "fail"), (7, "warn"), (20, "pass"), (55, "warn"), (90, "fail")])
def test_nuclei_of_another_size_than_nuclei_have_say_that_the_scale_may_be_wrong(stained, area, verdict):
    report = qc.assess(stained, 50, HALF, found={"nuclear_area_um2": area})
    assert (report.verdict, report.codes) == (verdict, () if verdict == "pass" else ("mpp_implausible",))
    assert report.measures["nuclear_area_um2"] == area


def drawn_nuclei(count, side):
    grid = np.zeros((40, 20 * count), np.int32)
    for number in range(count):
        grid[5 : 5 + side, 20 * number + 2 : 20 * number + 2 + side] = number + 1
    return instances.describe(grid, np.full((*grid.shape, 7), 1 / 7, np.float32), (1.0, 1.0))


def test_the_size_of_nuclei_is_their_median_in_square_microns():
    assert qc.of_nuclei(drawn_nuclei(12, side=10), Mpp(0.25, 0.5)) == {"nuclear_area_um2": 12.5}


def test_a_handful_of_nuclei_says_nothing():
    assert qc.of_nuclei(drawn_nuclei(9, side=10), HALF, Ballot(np.ones((4, 4), np.uint8), 3)) == {}


def test_members_and_views_that_disagree_more_than_usual_are_a_warning(stained):
    report = qc.assess(stained, 50, HALF, found={"disagreement": 0.9})
    assert (report.verdict, report.codes) == ("warn", ("ensemble_disagreement",))


def test_one_run_has_nobody_to_disagree_with():
    assert "disagreement" not in qc.of_nuclei(drawn_nuclei(12, side=10), HALF)
    ballot = Ballot(np.array([[0, 1, 2, 2]], np.uint8), 2)
    assert qc.of_nuclei(drawn_nuclei(12, side=10), HALF, ballot)["disagreement"] == 0.2


@pytest.mark.parametrize("figure", ["nuclear_area", "sharpness"])
def test_a_figure_that_no_model_gives_is_refused(stained, figure):
    with pytest.raises(ValueError, match=figure):
        qc.assess(stained, 50, HALF, found={figure: 1.0})


def test_the_right_scale_of_real_tissue_is_never_called_wrong_and_twice_too_coarse_often(data_root):
    folder = data_root / "lizard" / "Lizard_Images"
    paths = [path for path in sorted(folder.glob("*.png")) if not path.stem.startswith("consep")][::12]
    if not paths:
        pytest.skip("the Lizard images are not there")
    segmenter = Segmenter(load_artifact("karyon-lite"))
    images = [next(squares_of(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))) for path in paths]

    def told(mpp):
        return ["mpp_implausible" in segmenter.segment(image, mpp, "fast").qc.codes for image in images]

    assert not any(told(0.5))
    assert sum(told(1.0)) >= 0.2 * len(images)


def test_blur_is_told_by_degree(stained):
    blurred = [cv2.GaussianBlur(stained, (0, 0), sigma) for sigma in (1.0, 3.0)]
    reports = [qc.assess(image, 9, HALF) for image in (stained, *blurred)]
    sharpness = [report.measures["sharpness"] for report in reports]
    assert sharpness == sorted(sharpness, reverse=True)
    assert (reports[-1].verdict, reports[-1].codes) == ("fail", ("out_of_focus",))


def test_a_finer_scan_of_the_same_tissue_is_as_sharp(stained):
    finer = cv2.resize(stained, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    assert qc.assess(finer, 9, Mpp(0.25, 0.25)).measures["sharpness"] == pytest.approx(
        qc.assess(stained, 9, HALF).measures["sharpness"], rel=0.01
    )


@pytest.mark.parametrize(("gain", "code"), [(0.3, "too_dark"), (0.12, "too_dark"), (1.35, "saturated")])
def test_exposure_is_told(stained, gain, code):
    exposed = np.clip(stained * gain, 0, 255).astype(np.uint8)
    assert code in qc.assess(exposed, 9, HALF).codes


def test_pale_tissue_is_too_bright():
    assert qc.assess(coloured((236, 196, 228)), 9, HALF).codes == ("too_bright",)


def test_a_black_image_is_too_dark():
    report = qc.assess(coloured((0, 0, 0)), 0, HALF)
    assert (report.verdict, report.codes) == ("fail", ("no_tissue", "too_dark"))


@pytest.mark.parametrize("ink", [(30, 140, 60), (20, 70, 190), (210, 20, 40)])
def test_a_stroke_of_a_pen_is_told(stained, ink):
    marked = stained.copy()
    cv2.line(marked, (0, 200), (255, 30), ink, 12)
    assert qc.assess(marked, 9, HALF).codes == ("pen_mark",)


def test_a_brown_immunostain_is_no_haematoxylin_and_eosin():
    report = qc.assess(data.immunohistochemistry(), 9, HALF)
    assert (report.verdict, report.codes) == ("fail", ("stain_shift",))


def test_a_bound_can_be_replaced(stained):
    fraction = qc.assess(stained, 9, HALF).measures["tissue_fraction"]
    stricter = qc.assess(stained, 9, HALF, {"tissue_fraction.low.warn": fraction + 0.01})
    assert stricter.codes == ("no_tissue",)


def test_a_misspelt_bound_is_refused(stained):
    with pytest.raises(ValueError, match=r"sharpness\.warn"):
        qc.assess(stained, 9, HALF, {"sharpness.warn": 0.1})


def test_of_real_tissue_few_images_carry_a_warning(data_root):
    paths = sorted((data_root / "lizard" / "Lizard_Images").glob("*.png"))
    if not paths:
        pytest.skip("the Lizard images are not there")
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    warned = [path.stem for path, image in zip(paths, images, strict=True) if qc.assess(image, 9, HALF).codes]
    assert len(warned) <= 0.03 * len(paths), warned


def test_nuclei_without_colour_are_no_empty_glass_but_another_stain(stained):
    grey = np.repeat(stained.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    report = qc.assess(grey, 73, HALF)
    assert (report.verdict, "stain_shift" in report.codes, "no_tissue" in report.codes) == ("fail", True, False)
