"""How a patch is varied before it is learnt from: PAPER.md 3, plus stain and scale as options. No distortion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from app.nuclei.types import Float32, UInt8
from app.nuclei.views import VIEWS, View

HED_FROM_OD = np.linalg.inv(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])).astype(np.float32)
"""Optical density of red, green, blue to haematoxylin, eosin, DAB (Ruifrok and Johnston, 2001)."""

_ROW, _DIAGONAL = np.repeat([[0], [1], [0]], 3, axis=1).astype(np.float32), np.eye(3, dtype=np.float32)
LINES = (_ROW, _ROW.T, _DIAGONAL, _DIAGONAL[::-1])
"""Directions of motion blur."""


@dataclass(frozen=True)
class Jitter:
    """How far each property may move; the defaults are the paper's (hue 0.05, as in its code).

    Attributes:
        brightness, contrast, saturation: a factor within 1 +- this.
        hue: a share of the colour circle, +-.
        blur: probability of ONE of Gaussian, median or motion blur, kernel 3.
        stain: haematoxylin and eosin each by a factor within 1 +- this, shifted by a quarter of it; 0 is off.
        sharpen: probability, where no blur was drawn, of an unsharp mask, up to twice what a kernel of 3 takes away.
        jpeg: probability of a trip through JPEG, quality 40 to 95.
        scale: side of the cut within 1 +- this, brought to the patch size; 0 is off.
        symmetry: whether a crop is turned to any of its eight views.
    """

    brightness: float = 0.2
    contrast: float = 0.25
    saturation: float = 0.2
    hue: float = 0.05
    blur: float = 0.5
    stain: float = 0.0
    sharpen: float = 0.0
    jpeg: float = 0.0
    scale: float = 0.0
    symmetry: bool = True


def symmetry(rng: np.random.Generator) -> View:
    """Left-right flip, up-down flip, quarter turn and transpose, each with probability 1/2 (PAPER.md 3).

    Whatever is drawn comes to one of the eight views, each as likely as another.
    """
    return VIEWS[rng.integers(len(VIEWS))]


def recolour(image: UInt8, jitter: Jitter, rng: np.random.Generator) -> UInt8:
    """Vary stain, colour and sharpness of (H, W, 3) uint8 RGB; size and place stay."""
    if jitter.stain:
        image = _restain(image, jitter.stain, rng)
    image = _colour(image, jitter, rng)
    if rng.random() < jitter.blur:
        image = _blur(image, rng)
    # Only where it is asked for is a number drawn: runs without it see what they saw before.
    elif jitter.sharpen and rng.random() < jitter.sharpen:
        image = sharpened(image, rng.uniform(0, 2))
    return compressed(image, int(rng.integers(40, 96))) if jitter.jpeg and rng.random() < jitter.jpeg else image


def _restain(image: UInt8, amount: float, rng: np.random.Generator) -> UInt8:
    factor = rng.uniform(1 - amount, 1 + amount, 3).astype(np.float32)
    shift = rng.uniform(-amount, amount, 3).astype(np.float32) / 4
    return stained(image, factor, shift)


def stained(image: UInt8, factor: npt.ArrayLike, shift: npt.ArrayLike = 0.0) -> UInt8:
    """The same tissue with more or less of each stain.

    Args:
        image: (H, W, 3) uint8 RGB.
        factor: of haematoxylin, eosin and residue.
        shift: added to the density of each, on tissue only.
    """
    factor, shift = np.asarray(factor, np.float32), np.asarray(shift, np.float32)
    table = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    stains = table[image] @ HED_FROM_OD
    tissue = np.clip(stains.sum(-1, keepdims=True), 0, 1)  # glass stays white
    density = (stains * factor + shift * tissue) @ np.linalg.inv(HED_FROM_OD)
    return _to_bytes(256 * np.exp(-density) - 1)


def sharpened(image: UInt8, amount: float) -> UInt8:
    """(H, W, 3) uint8 RGB and `amount` times more of what a Gaussian of kernel 3 takes from it; 0 changes nothing."""
    values = image.astype(np.float32)
    return _to_bytes(values + np.float32(amount) * (values - cv2.GaussianBlur(values, (3, 3), 0)))


def compressed(image: UInt8, quality: int) -> UInt8:
    """(H, W, 3) uint8 RGB as a JPEG of this quality, 1 to 100, gives it back."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1], np.uint8)


def _colour(image: UInt8, jitter: Jitter, rng: np.random.Generator) -> UInt8:
    brightness, contrast, saturation = (
        np.float32(rng.uniform(1 - a, 1 + a)) for a in (jitter.brightness, jitter.contrast, jitter.saturation)
    )
    hue = rng.uniform(-jitter.hue, jitter.hue)
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)  # as float: hue in degrees, nothing is rounded
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * hue)) % 360
    values = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    grey = cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)[..., None]
    values = (grey + saturation * (values - grey)) * brightness
    middle = np.float32(grey.mean() * brightness)
    return _to_bytes(middle + contrast * (values - middle))


def _blur(image: UInt8, rng: np.random.Generator) -> UInt8:
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (3, 3), 0), np.uint8)
    if kind == 1:
        return np.asarray(cv2.medianBlur(image, 3), np.uint8)
    kernel = LINES[rng.integers(len(LINES))] / np.float32(3)
    return np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)


def _to_bytes(values: Float32) -> UInt8:
    return np.asarray(np.clip(values + 0.5, 0, 255), np.uint8)
