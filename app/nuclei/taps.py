"""How does one row of a map turn into a row of Sobel responses?

Enlarging twice (bilinear) and filtering with 21 taps are both linear, so along one axis they are one filter of 12
taps on the small map, with one set of weights for even and one for odd outputs. Near the border the weights differ:
OpenCV's conventions (half-pixel centres and repeated edge in enlarging, reflection without the edge in filtering) are
folded in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from app.nuclei.types import Float32, Float64, Int64

UNROLL = 4  # kernels add this many taps at a time; weights are padded with zeros


@dataclass(frozen=True, slots=True)
class Taps:
    """A linear map along one axis: `out[j] = sum_t weight[j, t] * x[start[j] + t]`, summed in the order of t.

    Attributes:
        start: (M,) int64.
        weight: (M, K) float32, K a multiple of 4; `start + K` may pass the end of x by up to 3, with weight 0.
        inner: outputs `inner[0]` to `inner[1]` repeat with the period `phases`, their windows moving on one by one.
        phases: 1, or 2 when the axis is enlarged.
    """

    start: Int64
    weight: Float32
    inner: tuple[int, int]
    phases: int


@lru_cache(maxsize=256)
def axis_taps(size: int, enlarge: int, sobel_taps: int, derivative: bool) -> Taps:
    """The filter along an axis of `size` pixels: derivative or smoothing part of a Sobel kernel after enlarging.

    Smoothing weights sum to 1, and a ramp of 1 per enlarged pixel has derivative 1.
    """
    few = min(size, 4 * (sobel_taps + 2))
    start, weight = _short_axis(few, enlarge, _sobel(sobel_taps, derivative))
    if few < size:  # a long axis is the short one with its middle repeated
        head = enlarge * (few // 2)
        more = np.arange(enlarge * (size - few))
        pattern = head + more % enlarge
        start = np.concatenate([start[:head], start[pattern] + more // enlarge, start[head:] + (size - few)])
        weight = np.concatenate([weight[:head], weight[pattern], weight[head:]])
    start.setflags(write=False)
    weight.setflags(write=False)
    outputs, reach = enlarge * size, sobel_taps // 2
    first, last = -(-(reach + 1) // enlarge) * enlarge, (outputs - 1 - reach) // enlarge * enlarge
    return Taps(start, weight, (first, last) if first < last else (0, 0), enlarge)


def _sobel(taps: int, derivative: bool) -> Float64:
    along, across = cv2.getDerivKernels(1, 0, taps, ktype=cv2.CV_64F)
    if derivative:
        kernel: Float64 = along[:, 0] / (along[:, 0] * (np.arange(taps) - taps // 2)).sum()
    else:
        kernel = across[:, 0] / across.sum()
    return kernel


def _short_axis(size: int, enlarge: int, kernel: Float64) -> tuple[Int64, Float32]:
    """Start and weights of every output, borders folded in, from the whole matrix of the linear map."""
    outputs, reach = enlarge * size, len(kernel) // 2
    rows = np.arange(outputs)
    matrix = np.zeros((outputs, size))
    for t, weight in enumerate(kernel):
        between = (_reflected(rows + t - reach, outputs) + 0.5) / enlarge - 0.5
        left = np.floor(between).astype(np.int64)
        for source, share in ((left, left + 1 - between), (left + 1, between - left)):
            matrix[rows, np.clip(source, 0, size - 1)] += weight * share
    first = (rows - reach - (enlarge - 1)) // enlarge
    width = min(size, int(((rows + reach + (enlarge - 1)) // enlarge - first).max()) + 1)
    start = np.clip(first, 0, size - width)
    weights = np.zeros((outputs, -(-width // UNROLL) * UNROLL), np.float32)
    weights[:, :width] = matrix[rows[:, None], start[:, None] + np.arange(width)]
    return start, weights


def _reflected(index: Int64, size: int) -> Int64:
    """Indices outside 0..size-1 mirrored back, the edge pixel not repeated."""
    if size == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * size - 2)
    inside: Int64 = np.minimum(folded, 2 * size - 2 - folded)
    return inside
