"""Where do kernels keep what they need only for a moment?

In arrays that stay with the thread: fresh memory costs a page fault every 4 KiB, more than the work done in it.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST = 16 << 20
"""Bytes up to which an array is kept; larger ones are fresh each time, so that a thread does not hold on to a slide."""


class _Kept(threading.local):
    def __init__(self) -> None:
        self.memory: dict[str, npt.NDArray[np.uint8]] = {}
        self.lent: dict[str, npt.NDArray[Any]] = {}


_kept = _Kept()


def borrow(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """An array of arbitrary content, the caller's until it borrows under the same name again on the same thread.

    It must not leave the step of the work that borrowed it.
    """
    lent = _kept.lent.get(name)
    if lent is not None and lent.shape == shape:  # a name has one dtype
        return lent
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > LARGEST:
        return np.empty(shape, dtype)
    memory = _kept.memory.get(name)
    if memory is None or len(memory) < size:
        memory = _kept.memory[name] = np.empty(size, np.uint8)
    lent = _kept.lent[name] = memory[:size].view(dtype).reshape(shape)
    return lent
