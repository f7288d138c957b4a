"""Where is nucleus, where are its edges, and in which order will water rise?

First half of separation (PAPER.md 5): from maps to the mask, the energy that the flood follows, and the pixels that
may become markers. The kernels and the NumPy functions below give the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.nuclei.jit import Array, kernel
from app.nuclei.scratch import borrow
from app.nuclei.sobel import filter_column, filter_columns, filter_rows, sum_taps
from app.nuclei.taps import Taps, axis_taps
from app.nuclei.types import Float32, UInt8

UInt16 = npt.NDArray[np.uint16]

FLAT = 1e-5  # responses that vary less than this share of the largest offset are rounding: the map is constant
QUARTER, HALF = np.float32(0.25), np.float32(0.5)  # OpenCV's 3x3 Gaussian, one axis: outer and middle weight


class Landscape(NamedTuple):
    """What the flood runs over, on the grid of the operating point.

    Attributes:
        mask: (h, w) uint8, 1 where nucleus.
        inner: (h, w) uint8, 1 where nucleus and no edge: raw markers.
        energy: (h, w) uint16, low is flooded first; 0 .. 2^bits - 1.
    """

    mask: UInt8
    inner: UInt8
    energy: UInt16


class Scaling(NamedTuple):
    """Offsets and factors that bring the two Sobel responses to 0..1: `(response - low) * factor`."""

    low_across: np.float32
    factor_across: np.float32
    low_down: np.float32
    factor_down: np.float32


Axes = list[tuple[Taps, Taps]]
"""Of each channel the filters along x and y; along an axis both channels have the same `start` and `inner`."""

Range = tuple[float, float]

Thresholds = tuple[np.float32, np.float32, np.float32]
"""Of nucleus and marker, and the highest level of energy."""


def survey(
    np_prob: Float32,
    hv: Float32,
    *,
    enlarge: int,
    sobel_taps: int,
    nucleus_threshold: float,
    marker_threshold: float,
    energy_bits: int,
    hv_scale: tuple[float, float] | None,
    compiled: bool,
) -> Landscape:
    """The landscape of one image; see `hover.OperatingPoint` for the constants.

    Args:
        np_prob: (H, W) C-contiguous.
        hv: (H, W, 2) C-contiguous.
        compiled: by numba kernels, or by NumPy.
    """
    height, width = np_prob.shape
    axes = [
        (axis_taps(width, enlarge, sobel_taps, d), axis_taps(height, enlarge, sobel_taps, not d)) for d in (True, False)
    ]
    thresholds = np.float32(nucleus_threshold), np.float32(marker_threshold), np.float32(2**energy_bits - 1)
    run = _survey_compiled if compiled else _survey_numpy
    return run(np_prob, hv, axes, hv_scale, thresholds)


def _stretch(response: Range, offset: Range, fixed: Range | None) -> tuple[np.float32, np.float32]:
    """What to subtract from one channel's responses, and what to multiply by.

    An offset that is the same everywhere tells no nuclei apart, and a response that hardly varies is its rounding: the
    factor is 0, and nothing becomes a marker.
    """
    low, high = fixed or response
    floor = FLAT * max(abs(offset[0]), abs(offset[1]))
    varies = high - low > floor and offset[1] - offset[0] > floor
    return np.float32(low), np.float32(1 / (high - low) if varies else 0)


def _range(values: Float32) -> Range:
    return float(values.min()), float(values.max())


def _survey_numpy(np_prob: Float32, hv: Float32, axes: Axes, fixed: Range | None, thresholds: Thresholds) -> Landscape:
    across, down = (
        sum_taps(sum_taps(np.pad(hv[..., channel], ((0, 4), (0, 4))).T, x).T, y) for channel, (x, y) in enumerate(axes)
    )
    scaling = Scaling(
        *_stretch(_range(across), _range(hv[..., 0]), fixed), *_stretch(_range(down), _range(hv[..., 1]), fixed)
    )
    return _terrain_numpy(np_prob, across, down, scaling, *thresholds)


def _survey_compiled(
    np_prob: Float32, hv: Float32, axes: Axes, fixed: Range | None, thresholds: Thresholds
) -> Landscape:
    (x_across, y_across), (x_down, y_down) = axes
    height, width = len(y_across.start), len(x_across.start)
    rows = (
        borrow("across rows", (len(hv) + 4, width), np.float32),
        borrow("down rows", (len(hv) + 4, width), np.float32),
    )
    x = x_across.start, x_across.weight, x_down.weight, *x_across.inner, x_across.phases
    offsets = filter_rows(hv, *x, *rows)
    across = down = np.empty((0, width), np.float32)
    range_a = range_d = (0.0, 0.0)
    if fixed is None:  # the scale is known only when every response is
        across, down = (borrow(name, (height, width), np.float32) for name in ("across", "down"))
        range_a = filter_columns(rows[0], y_across.start, y_across.weight, across)
        range_d = filter_columns(rows[1], y_down.start, y_down.weight, down)
    scaling = Scaling(*_stretch(range_a, offsets[:2], fixed), *_stretch(range_d, offsets[2:], fixed))
    terrain = Landscape(
        borrow("mask", (height, width), np.uint8),
        borrow("inner", (height, width), np.uint8),
        borrow("energy", (height, width), np.uint16),
    )
    y = y_across.start, y_across.weight, y_down.weight
    _terrain(np_prob, *rows, *y, across, down, *scaling, *thresholds, *terrain)
    return terrain


def _terrain_numpy(
    np_prob: Float32,
    across: Float32,
    down: Float32,
    scaling: Scaling,
    nucleus: np.float32,
    marker: np.float32,
    levels: np.float32,
) -> Landscape:
    if across.shape != np_prob.shape:
        np_prob = _doubled(_doubled(np_prob).T).T
    mask = np_prob >= nucleus
    one = np.float32(1)
    depth = np.minimum(
        (across - scaling.low_across) * scaling.factor_across, (down - scaling.low_down) * scaling.factor_down
    )
    depth = np.where(mask, np.clip(depth, 0, one), np.float32(0))
    inner = mask & (one - depth < marker)
    smooth = _blurred(_blurred(depth).T).T
    energy = ((one - smooth) * levels + np.float32(0.5)).astype(np.uint16)
    return Landscape(mask.astype(np.uint8), inner.astype(np.uint8), np.ascontiguousarray(energy))


def _doubled(values: Float32) -> Float32:
    """Bilinear enlargement along the first axis, pixel centres kept, edges repeated."""
    before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
    near, far = np.float32(0.75), np.float32(0.25)
    both = np.stack([near * values + far * before, near * values + far * after], axis=1)
    doubled: Float32 = both.reshape(-1, values.shape[1]).astype(np.float32, copy=False)
    return doubled


def _blurred(values: Float32) -> Float32:
    """[1 2 1] / 4 along the first axis, mirrored without the edge."""
    if len(values) == 1:
        before = after = values
    else:
        before, after = np.concatenate([values[1:2], values[:-1]]), np.concatenate([values[1:], values[-2:-1]])
    blurred: Float32 = QUARTER * (before + after) + HALF * values
    return blurred


@kernel
def _terrain(
    np_prob: Array, across_rows: Array, down_rows: Array, start: Array, across_weight: Array, down_weight: Array,
    across: Array, down: Array, low_a: float, factor_a: float, low_d: float, factor_d: float,
    nucleus: float, marker: float, levels: float, mask: Array, inner: Array, energy: Array,
) -> None:  # fmt: skip
    """Row by row, three rows of depth at hand; responses are filtered on the way unless `across`, `down` hold them."""
    height, width = mask.shape
    depth, line = np.zeros((3, width), np.float32), np.empty(width + 2, np.float32)
    line_a, line_d = np.empty(width, np.float32), np.empty(width, np.float32)
    for j in range(height + 1):
        if j < height:
            if len(across):
                line_a, line_d = across[j], down[j]
            else:
                filter_column(across_rows, start, across_weight, j, line_a)
                filter_column(down_rows, start, down_weight, j, line_d)
            _mask_row(np_prob, j, height > np_prob.shape[0], nucleus, mask, line)
            _depth_row(line_a, line_d, low_a, factor_a, low_d, factor_d, marker, j, mask, depth, inner)
        if j > 0:
            middle = j - 1
            above = abs(middle - 1) if height > 1 else 0
            below = j if j < height else max(height - 2, 0)
            _energy_row(depth, above % 3, middle % 3, below % 3, levels, line, energy, middle)


@kernel
def _mask_row(np_prob: Array, j: int, doubled: bool, nucleus: float, masks: Array, line: Array) -> None:
    rows, cols = np_prob.shape
    mask = masks[j]
    if not doubled:
        here = np_prob[j]
        for c in range(cols):
            mask[c] = here[c] >= nucleus
        return
    near, far = np.float32(0.75), np.float32(0.25)
    here = np_prob[j // 2]
    there = np_prob[min(max(j // 2 - 1 + 2 * (j % 2), 0), rows - 1)]
    inside = line[1 : cols + 1]
    for c in range(cols):
        inside[c] = near * here[c] + far * there[c]
    line[0], line[cols + 1] = line[1], line[cols]
    left, right = line[:cols], line[2:]
    for c in range(cols):
        mask[2 * c] = near * inside[c] + far * left[c] >= nucleus
        mask[2 * c + 1] = near * inside[c] + far * right[c] >= nucleus


@kernel
def _depth_row(
    across: Array, down: Array, low_a: float, factor_a: float, low_d: float, factor_d: float,
    marker: float, j: int, masks: Array, depths: Array, inners: Array,
) -> None:  # fmt: skip
    zero, one = np.float32(0), np.float32(1)
    mask, depth, inner = masks[j], depths[j % 3], inners[j]
    for i in range(len(depth)):
        d = min((across[i] - low_a) * factor_a, (down[i] - low_d) * factor_d)
        d = min(max(d, zero), one)
        d = d if mask[i] else zero
        depth[i] = d
        inner[i] = mask[i] & (one - d < marker)


@kernel
def _energy_row(
    depth: Array, up: int, here: int, down: int, levels: float, line: Array, energies: Array, j: int
) -> None:
    outer, centre = np.float32(0.25), np.float32(0.5)
    one, half = np.float32(1), np.float32(0.5)
    above, middle, below, energy = depth[up], depth[here], depth[down], energies[j]
    width = len(energy)
    for i in range(width):
        line[i + 1] = outer * (above[i] + below[i]) + centre * middle[i]
    line[0], line[width + 1] = (line[2], line[width - 1]) if width > 1 else (line[1], line[1])
    for i in range(width):
        smooth = outer * (line[i] + line[i + 2]) + centre * line[i + 1]
        energy[i] = np.uint16((one - smooth) * levels + half)
