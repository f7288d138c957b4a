"""How is a map filtered with the taps of both axes?

Kernels and their NumPy twin: each output is a sum over taps in the same order, so that both give the same bits.
"""

from __future__ import annotations

import numpy as np

from app.nuclei.jit import Array, kernel
from app.nuclei.taps import Taps
from app.nuclei.types import Float32


def sum_taps(values: Float32, taps: Taps) -> Float32:
    """A filter along the first axis; `values` reach 3 rows beyond the axis."""
    total = taps.weight[:, 0, None] * values[taps.start]
    for t in range(1, taps.weight.shape[1]):
        total += taps.weight[:, t, None] * values[taps.start + t]
    return total


@kernel
def filter_rows(
    hv: Array, channel: int, start: Array, weight: Array, first: int, last: int, phases: int, out: Array
) -> tuple[float, float]:
    """One channel filtered along its rows, then 4 rows of zeros, which weights of 0 may meet.

    Returns:
        Smallest and largest value of the channel.
    """
    rows, cols = hv.shape[0], hv.shape[1]
    width = out.shape[1]
    count = (last - first) // phases
    line = np.zeros(cols + 4, np.float32)
    low, high = np.full(cols, np.inf, np.float32), np.full(cols, -np.inf, np.float32)
    even, odd = np.empty(count, np.float32), np.empty(count, np.float32)
    out[rows:] = 0
    for r in range(rows):
        for c in range(cols):
            line[c] = hv[r, c, channel]
        _widen(line[:cols], low, high)
        target = out[r]
        for j in range(first if last > first else width):
            target[j] = _one(line, start[j], weight[j])
        if last > first:
            for j in range(last, width):
                target[j] = _one(line, start[j], weight[j])
            inside = target[first:last]
            if phases == 1:
                _slide(line, start[first], weight[first], inside)
            else:
                _slide(line, start[first], weight[first], even)
                _slide(line, start[first + 1], weight[first + 1], odd)
                for i in range(count):
                    inside[2 * i] = even[i]
                    inside[2 * i + 1] = odd[i]
    return low.min(), high.max()


@kernel
def filter_columns(rows: Array, start: Array, weight: Array, out: Array) -> tuple[float, float]:
    """Filtered along the columns; smallest and largest response."""
    width = out.shape[1]
    low, high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    for j in range(out.shape[0]):
        target = out[j]
        filter_column(rows, start[j], weight[j], target)
        _widen(target, low, high)
    return low.min(), high.max()


@kernel
def _widen(line: Array, low: Array, high: Array) -> None:
    """Smallest and largest value of each column so far; spelt so that it becomes vector instructions."""
    for i in range(len(line)):
        value = line[i]
        low[i] = value if value < low[i] else low[i]
        high[i] = value if value > high[i] else high[i]


@kernel
def filter_column(rows: Array, start: int, weight: Array, out: Array) -> None:
    """One row of the output, 4 rows of the input at a time."""
    for t in range(0, len(weight), 4):
        w0, w1, w2, w3 = weight[t], weight[t + 1], weight[t + 2], weight[t + 3]
        r0, r1, r2, r3 = rows[start + t], rows[start + t + 1], rows[start + t + 2], rows[start + t + 3]
        if t == 0:
            for i in range(len(out)):
                out[i] = ((w0 * r0[i] + w1 * r1[i]) + w2 * r2[i]) + w3 * r3[i]
        else:
            for i in range(len(out)):
                out[i] = (((out[i] + w0 * r0[i]) + w1 * r1[i]) + w2 * r2[i]) + w3 * r3[i]


@kernel
def _one(line: Array, start: int, weight: Array) -> np.float32:
    total = weight[0] * line[start]
    for t in range(1, len(weight)):
        total += weight[t] * line[start + t]
    return total  # type: ignore[no-any-return]


@kernel
def _slide(line: Array, start: int, weight: Array, out: Array) -> None:
    for t in range(0, len(weight), 4):
        w0, w1, w2, w3 = weight[t], weight[t + 1], weight[t + 2], weight[t + 3]
        x = line[start + t :]
        if t == 0:
            for i in range(len(out)):
                out[i] = ((w0 * x[i] + w1 * x[i + 1]) + w2 * x[i + 2]) + w3 * x[i + 3]
        else:
            for i in range(len(out)):
                out[i] = (((out[i] + w0 * x[i]) + w1 * x[i + 1]) + w2 * x[i + 2]) + w3 * x[i + 3]
