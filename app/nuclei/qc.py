"""What is technically wrong with this image?

Warnings about pixels, not about tissue or patients: each code rests on one figure and two bounds. Colour is judged on
a small area-averaged copy, sharpness on the image's own pixels brought to at most about 0.5 um. The default bounds lie
outside what 119 H&E images of three sources (GlaS, DigestPath, PanNuke as in the Lizard set) show.

Stain: pixels are turned to optical density (Beer-Lambert, -log10(I / 256), Ruifrok and Johnston 2001), where a stain is
a direction. Two figures tell a foreign stain: the angle between the tissue's mean direction and the H&E reference, and
the share of tissue that absorbs blue more than green. Haematoxylin and eosin both absorb green most; DAB, silver and
other brown chromogens absorb blue most. This needs no estimate of stain vectors, which is unstable on small tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from app.nuclei import ballots
from app.nuclei.types import Ballot, Float32, Mpp, Nuclei, QualityReport, UInt8, Verdict

Bool = npt.NDArray[np.bool_]

_THUMB = 256  # longest side of the copy on which colours are judged
_FOCUS_MPP = 0.5  # finer images are brought here first: the same blur covers more pixels of a finer scan
_WINDOW, _WINDOWS = 256, 4  # sharpness of a big image: at most 4 x 4 windows of 256 pixels
_REFERENCE = np.array([0.388, 0.861, 0.327])  # mean optical density direction (r, g, b) of the 119 images
ENOUGH = 10
"""Nuclei from which on their size, and what runs say of them, tells something of an image."""
_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)

Side = Literal["low", "high"]


class _Rule(NamedTuple):
    code: str
    measure: str
    bad: Side


_RULES = (
    _Rule("no_tissue", "tissue_fraction", "low"),
    _Rule("out_of_focus", "sharpness", "low"),
    _Rule("too_bright", "tissue_lightness", "high"),
    _Rule("too_dark", "tissue_lightness", "low"),
    _Rule("too_dark", "black_fraction", "high"),
    _Rule("saturated", "clipped_fraction", "high"),
    _Rule("pen_mark", "pen_fraction", "high"),
    _Rule("stain_shift", "brown_fraction", "high"),
    _Rule("stain_shift", "stain_angle_deg", "high"),
    _Rule("mpp_implausible", "nuclear_area_um2", "low"),
    _Rule("mpp_implausible", "nuclear_area_um2", "high"),
    _Rule("ensemble_disagreement", "disagreement", "high"),
)

FOUND = frozenset({"nuclear_area_um2", "disagreement"})
"""Measures of what was found, not of pixels; a model's manifest may have bounds of its own."""

# "measure.side.verdict"; a code without a "fail" bound only warns. Worst of the 119 images in brackets.
DEFAULT_THRESHOLDS: Mapping[str, float] = MappingProxyType(
    {
        "tissue_fraction.low.warn": 0.02,  # (.06)
        "sharpness.low.warn": 0.08,  # (.13; Gaussian blur of 1.5 px leaves .03 to .06)
        "sharpness.low.fail": 0.045,
        "tissue_lightness.high.warn": 0.84,  # (.81)
        "tissue_lightness.high.fail": 0.90,
        "tissue_lightness.low.warn": 0.33,  # (.41)
        "tissue_lightness.low.fail": 0.20,
        "black_fraction.high.warn": 0.10,  # (.003)
        "black_fraction.high.fail": 0.60,
        "clipped_fraction.high.warn": 0.25,  # (.09)
        "clipped_fraction.high.fail": 0.60,
        "pen_fraction.high.warn": 0.02,  # (.001)
        "brown_fraction.high.warn": 0.15,  # (.05; a DAB stain .94)
        "brown_fraction.high.fail": 0.50,
        "stain_angle_deg.high.warn": 25.0,  # (17; a DAB stain 30)
        "stain_angle_deg.high.fail": 40.0,
        # As `python -m training.plausibility karyon-lite` draws them from 714 squares of the 119 images.
        "nuclear_area_um2.low.warn": 7.6,  # (8.75)
        "nuclear_area_um2.low.fail": 5.5,
        "nuclear_area_um2.high.warn": 53.0,  # (46.5)
        "nuclear_area_um2.high.fail": 74.0,
        "disagreement.high.warn": 0.18,  # (.153)
    }
)


def assess(
    image: UInt8,
    nuclei_total: int,
    mpp: Mpp,
    thresholds: Mapping[str, float] | None = None,
    found: Mapping[str, float] | None = None,
) -> QualityReport:
    """Technical warnings about one image.

    Args:
        image: (H, W, 3) uint8 RGB, any size from 1x1 up.
        nuclei_total: how many nuclei were found; 0 always gives `no_tissue` or `no_nuclei_in_tissue`.
        mpp: um per pixel of `image`.
        thresholds: replacements for entries of `DEFAULT_THRESHOLDS`.
        found: figures of what was found there, as `of_nuclei` gives them.

    Returns:
        Codes in a fixed order, the worst verdict, and every figure that was compared (finite, 4 decimals). Without
        tissue only the figures that make sense on bare glass are taken.

    Raises:
        ValueError: if `thresholds` names a bound, or `found` a figure, that does not exist.
    """
    bounds = dict(DEFAULT_THRESHOLDS) | dict(thresholds or {})
    if strangers := sorted(bounds.keys() - DEFAULT_THRESHOLDS.keys()):
        raise ValueError(f"no such threshold: {', '.join(strangers)}")
    if strangers := sorted((found or {}).keys() - FOUND):
        raise ValueError(f"no such figure: {', '.join(strangers)}")
    measures = _measure(image, mpp) | dict(found or {})
    said = judge(measures, bounds)
    if nuclei_total and not measures["tissue_fraction"]:
        said.pop("no_tissue", "warn")
        said["stain_shift"] = "fail"  # nuclei, and no colour at all: whatever this is, it is not H&E
    said |= dict.fromkeys(_said_of_the_request(nuclei_total, mpp, "no_tissue" in said), "warn")
    return QualityReport(_worst(said), tuple(said), measures)


def of_nuclei(nuclei: Nuclei, mpp: Mpp, ballot: Ballot | None = None) -> dict[str, float]:
    """Figures of what was found in an image; none where that are fewer than `ENOUGH` nuclei.

    `nuclear_area_um2` is the median area: tissue under another scale than stated has nuclei of another size.
    `disagreement` is `app.nuclei.ballots.disagreement`, if several runs were averaged.

    Args:
        nuclei: in the caller's pixels.
        mpp: um per pixel of those.
        ballot: of the runs whose mean they were found in.
    """
    if len(nuclei) < ENOUGH:
        return {}
    figures = {"nuclear_area_um2": float(np.median(nuclei.area)) * mpp.x * mpp.y}
    if ballot:
        figures["disagreement"] = ballots.disagreement(ballot)
    return {name: round(value, 4) for name, value in figures.items()}


def tissue_fraction(image: UInt8) -> float:
    """Share of an image that is stained, 0..1.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    return float(tissue_mask(image).mean())


def tissue_mask(image: UInt8) -> Bool:
    """Where an image is stained: darker than glass, and in one colour more than in another.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (h, w) bool on a copy of at most 256 pixels a side. Grey and black things (pen, fold, film edge) are no tissue.
    """
    return stained(_shrunk(image, cv2.INTER_AREA))


def _measure(image: UInt8, mpp: Mpp) -> dict[str, float]:
    thumb = _shrunk(image, cv2.INTER_AREA)
    tissue = stained(thumb)
    measures = {
        "tissue_fraction": tissue.mean(),
        "black_fraction": (_extremes(thumb)[1] < 40).mean(),
        "pen_fraction": _pen(thumb).mean(),
    }
    if measures["tissue_fraction"] > 0:
        coloured = thumb[tissue]
        measures |= {
            "tissue_lightness": coloured.mean() / 255,
            "clipped_fraction": _clipped(image),
        }
        measures |= _stain(_DENSITY[coloured])
        if (sharpness := _sharpness(image, mpp)) is not None:
            measures["sharpness"] = sharpness
    return {name: round(float(value), 4) for name, value in measures.items()}


def judge(measures: Mapping[str, float], bounds: Mapping[str, float]) -> dict[str, Verdict]:
    """The codes that measures give, each with its worst verdict; those that are not there say nothing.

    Args:
        measures: as reports have them.
        bounds: as `DEFAULT_THRESHOLDS`, whole.
    """
    said: dict[str, Verdict] = {}
    for rule in _RULES:
        verdict = _judge(rule, measures, bounds)
        if verdict != "pass" and said.get(rule.code) != "fail":
            said[rule.code] = verdict
    return said


def _judge(rule: _Rule, measures: Mapping[str, float], bounds: Mapping[str, float]) -> Verdict:
    value = measures.get(rule.measure)
    if value is None:
        return "pass"
    sign = 1 if rule.bad == "high" else -1
    for verdict in ("fail", "warn"):
        bound = bounds.get(f"{rule.measure}.{rule.bad}.{verdict}")
        if bound is not None and sign * value > sign * bound:
            return verdict
    return "pass"


def _said_of_the_request(nuclei_total: int, mpp: Mpp, no_tissue: bool) -> list[str]:
    said = {
        "no_nuclei_in_tissue": nuclei_total == 0 and not no_tissue,
        "mpp_assumed": mpp.source == "model-default",
        "mpp_conflict": mpp.conflict,
    }
    return [code for code, holds in said.items() if holds]


def _worst(said: Mapping[str, Verdict]) -> Verdict:
    if "fail" in said.values():
        return "fail"
    return "warn" if said else "pass"


def _shrunk(image: UInt8, how: int) -> UInt8:
    height, width = image.shape[:2]
    scale = _THUMB / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def stained(thumb: UInt8) -> Bool:
    """(h, w) bool: which pixels of a small image (h, w, 3) are tissue; see `tissue_mask`."""
    darkest, brightest = _extremes(thumb)
    density, chroma = _DENSITY[darkest], _DENSITY[darkest] - _DENSITY[brightest]
    mask: Bool = (density > 0.1) & (chroma > 0.05) & (brightest >= 25)
    return mask


def _clipped(image: UInt8) -> float:
    """Share of pixels with a channel at its end, pure white apart: that may be glass. Averaging would hide them."""
    lowest, highest = _extremes(_shrunk(image, cv2.INTER_NEAREST))
    coloured = lowest < 250
    clipped = coloured & ((lowest == 0) | (highest == 255))
    return float(clipped.sum() / max(1, coloured.sum()))


def _extremes(thumb: UInt8) -> tuple[UInt8, UInt8]:
    """(h, w) lowest and highest channel of each pixel: whole planes, as NumPy is slow along an axis of three."""
    red, green, blue = cv2.split(thumb)
    lowest, highest = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    return np.asarray(lowest, np.uint8), np.asarray(highest, np.uint8)


def _stain(density: Float32) -> dict[str, float]:
    mean = np.array(cv2.mean(density.reshape(-1, 1, 3))[:3])
    cosine = float(mean @ _REFERENCE / (np.linalg.norm(mean) * np.linalg.norm(_REFERENCE)))
    return {
        "brown_fraction": (density[:, 2] > density[:, 1]).mean(),
        "stain_angle_deg": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
    }


def _pen(thumb: UInt8) -> Bool:
    """Green, blue and red ink: hues and strengths that neither haematoxylin nor eosin reaches (OpenCV's 0..179)."""
    hue, strength, value = cv2.split(cv2.cvtColor(thumb, cv2.COLOR_RGB2HSV))
    green = (hue >= 35) & (hue <= 90) & (strength > 60)
    blue = (hue > 90) & (hue < 118) & (strength > 90)
    red = ((hue < 8) | (hue > 174)) & (strength > 150) & (value > 120)
    mask: Bool = (green | blue | red) & (value > 40)
    return mask


def _sharpness(image: UInt8, mpp: Mpp) -> float | None:
    """Energy of the finest detail over that of the next coarser (1 to 4 um); None where there is no detail at all.

    As a ratio it depends on neither contrast nor the depth of the stain, as a Laplacian's variance does.
    """
    fine = coarse = 0.0
    for window in _windows(image, mpp):
        grey = cv2.cvtColor(window, cv2.COLOR_RGB2GRAY).astype(np.float32)
        once, much = cv2.blur(grey, (3, 3)), cv2.blur(grey, (9, 9))
        fine += cv2.norm(grey, once, cv2.NORM_L2SQR)
        coarse += cv2.norm(once, much, cv2.NORM_L2SQR)
    return fine / coarse if coarse > 0 else None


def _windows(image: UInt8, mpp: Mpp) -> list[UInt8]:
    height, width = image.shape[:2]
    shrink_x, shrink_y = max(1.0, _FOCUS_MPP / mpp.x), max(1.0, _FOCUS_MPP / mpp.y)
    rows, cols = round(_WINDOW * shrink_y), round(_WINDOW * shrink_x)
    cuts = [
        image[top : top + rows, left : left + cols] for top in _starts(height, rows) for left in _starts(width, cols)
    ]
    return [_resized(cut, shrink_x, shrink_y) for cut in cuts]


def _starts(length: int, window: int) -> list[int]:
    count = min(_WINDOWS, -(-length // window))
    return sorted({round(start) for start in np.linspace(0, max(0, length - window), count)})


def _resized(cut: UInt8, shrink_x: float, shrink_y: float) -> UInt8:
    if shrink_x == shrink_y == 1:
        return cut
    size = max(1, round(cut.shape[1] / shrink_x)), max(1, round(cut.shape[0] / shrink_y))
    return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.uint8)
