"""How is a map filtered with the taps of both axes?

Kernels and their NumPy twin: each output is a sum over taps in the same order, so that both give the same bits.
"""

from __future__ import annotations

import numpy as np

from app.nuclei.jit import Array, kernel
from app.nuclei.taps import Taps
from app.nuclei.types import Float32

MARGIN = 40  # zeros around a line, as many as the longest filter has taps and more


def sum_taps(values: Float32, taps: Taps) -> Float32:
    """A filter along the first axis; `values` reach 3 rows beyond the axis."""
    total = taps.weight[:, 0, None] * values[taps.start]
    for t in range(1, taps.weight.shape[1]):
        total += taps.weight[:, t, None] * values[taps.start + t]
    return total


@kernel
def filter_rows(
    hv: Array, start: Array, across_weight: Array, down_weight: Array, first: int, last: int, phases: int,
    across: Array, down: Array,
) -> tuple[float, float, float, float]:  # fmt: skip
    """Both channels filtered along their rows, then 4 rows of zeros, which weights of 0 may meet.

    Returns:
        Smallest and largest value of either channel.
    """
    rows, cols = hv.shape[0], hv.shape[1]
    line_a, line_d = np.zeros(cols + 2 * MARGIN, np.float32), np.zeros(cols + 2 * MARGIN, np.float32)
    inside_a, inside_d = line_a[MARGIN:], line_d[MARGIN:]
    low_a, high_a = np.full(cols, np.inf, np.float32), np.full(cols, -np.inf, np.float32)
    low_d, high_d = low_a.copy(), high_a.copy()
    phase = np.empty((2, across.shape[1] // phases), np.float32)
    across[rows:] = 0
    down[rows:] = 0
    pairs = hv.reshape(-1)
    for r in range(rows):
        _part(pairs, r, cols, inside_a, inside_d)
        _widen(inside_a, low_a, high_a)
        _widen(inside_d, low_d, high_d)
        _filter_row(line_a, start, across_weight, first, last, phases, phase, across, r)
        _filter_row(line_d, start, down_weight, first, last, phases, phase, down, r)
    return low_a.min(), high_a.max(), low_d.min(), high_d.max()


@kernel
def _part(pairs: Array, r: int, cols: int, line_a: Array, line_d: Array) -> None:
    """Tell the channels of a row apart; of a flat array, whose steps are known when this is compiled to vectors."""
    row = pairs[2 * cols * r : 2 * cols * (r + 1)]
    for c in range(cols):
        line_a[c] = row[2 * c]
        line_d[c] = row[2 * c + 1]


@kernel
def _filter_row(
    line: Array, start: Array, weight: Array, first: int, last: int, phases: int, phase: Array, out: Array, r: int
) -> None:
    """One row: as if all of it were inner, in whole vectors, and then its ends."""
    target = out[r]
    if last > first:
        begin = MARGIN - first // phases
        if phases == 1:
            _slide(line, begin + start[first], weight, first, target)
        else:
            even, odd = phase[0], phase[1]
            _slide(line, begin + start[first], weight, first, even)
            _slide(line, begin + start[first + 1], weight, first + 1, odd)
            for i in range(len(even)):
                target[2 * i] = even[i]
                target[2 * i + 1] = odd[i]
    for j in range(first if last > first else len(target)):
        target[j] = _one(line, start, weight, j)
    for j in range(last if last > first else len(target), len(target)):
        target[j] = _one(line, start, weight, j)


@kernel
def filter_columns(rows: Array, start: Array, weight: Array, out: Array) -> tuple[float, float]:
    """Filtered along the columns; smallest and largest response."""
    width = out.shape[1]
    low, high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    for j in range(out.shape[0]):
        target = out[j]
        filter_column(rows, start, weight, j, target)
        _widen(target, low, high)
    return low.min(), high.max()


@kernel
def _widen(line: Array, low: Array, high: Array) -> None:
    """Smallest and largest value of each column so far; spelt so that it becomes vector instructions."""
    for i in range(len(low)):
        value = line[i]
        low[i] = value if value < low[i] else low[i]
        high[i] = value if value > high[i] else high[i]


@kernel
def filter_column(rows: Array, starts: Array, weights: Array, j: int, out: Array) -> None:
    """Row j of the output, 8 rows of the input at a time, or 4."""
    start, weight = starts[j], weights[j]
    begin = 0
    if len(weight) >= 8:
        w0, w1, w2, w3, w4, w5, w6, w7 = (
            weight[0], weight[1], weight[2], weight[3], weight[4], weight[5], weight[6], weight[7]
        )  # fmt: skip
        a0, a1, a2, a3 = rows[start], rows[start + 1], rows[start + 2], rows[start + 3]
        a4, a5, a6, a7 = rows[start + 4], rows[start + 5], rows[start + 6], rows[start + 7]
        for i in range(len(out)):
            total = ((w0 * a0[i] + w1 * a1[i]) + w2 * a2[i]) + w3 * a3[i]
            out[i] = (((total + w4 * a4[i]) + w5 * a5[i]) + w6 * a6[i]) + w7 * a7[i]
        begin = 8
    for t in range(begin, len(weight), 4):
        w0, w1, w2, w3 = weight[t], weight[t + 1], weight[t + 2], weight[t + 3]
        r0, r1, r2, r3 = rows[start + t], rows[start + t + 1], rows[start + t + 2], rows[start + t + 3]
        if t == 0:
            for i in range(len(out)):
                out[i] = ((w0 * r0[i] + w1 * r1[i]) + w2 * r2[i]) + w3 * r3[i]
        else:
            for i in range(len(out)):
                out[i] = (((out[i] + w0 * r0[i]) + w1 * r1[i]) + w2 * r2[i]) + w3 * r3[i]


@kernel
def _one(line: Array, start: Array, weight: Array, j: int) -> np.float32:
    weights, x = weight[j], line[MARGIN + start[j] :]
    total = weights[0] * x[0]
    for t in range(1, len(weights)):
        total += weights[t] * x[t]
    return total  # type: ignore[no-any-return]


@kernel
def _slide(line: Array, start: int, weights: Array, j: int, out: Array) -> None:
    """Windows of the line from `start` on, one by one, with the weights of output j; 8 taps at a time, or 4."""
    weight = weights[j]
    begin = 0
    if len(weight) >= 8:
        w0, w1, w2, w3, w4, w5, w6, w7 = (
            weight[0], weight[1], weight[2], weight[3], weight[4], weight[5], weight[6], weight[7]
        )  # fmt: skip
        x = line[start:]
        for i in range(len(out)):
            total = ((w0 * x[i] + w1 * x[i + 1]) + w2 * x[i + 2]) + w3 * x[i + 3]
            out[i] = (((total + w4 * x[i + 4]) + w5 * x[i + 5]) + w6 * x[i + 6]) + w7 * x[i + 7]
        begin = 8
    for t in range(begin, len(weight), 4):
        w0, w1, w2, w3 = weight[t], weight[t + 1], weight[t + 2], weight[t + 3]
        x = line[start + t :]
        if t == 0:
            for i in range(len(out)):
                out[i] = ((w0 * x[i] + w1 * x[i + 1]) + w2 * x[i + 2]) + w3 * x[i + 3]
        else:
            for i in range(len(out)):
                out[i] = (((out[i] + w0 * x[i]) + w1 * x[i + 1]) + w2 * x[i + 2]) + w3 * x[i + 3]
