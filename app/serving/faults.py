"""What does an error of the runtime mean? It has no types for that, only texts."""

from __future__ import annotations

import re
from enum import Enum

MEMORY = re.compile(
    r"Failed to allocate memory|is smaller than requested bytes|CUDA failure 2\b|out of memory"
    r"|CU(?:BLAS|DNN)_STATUS_(?:ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)"
)
STICKY = re.compile(
    r"CUDA failure (?:214|70[0-2]|71\d|999)\b|CU(?:BLAS|DNN)_STATUS_EXECUTION_FAILED|illegal memory access|\bXid\b",
    re.IGNORECASE,
)
ENDED = re.compile(r"terminate flag", re.IGNORECASE)


class Fault(Enum):
    """Kinds of error, by what can be done about them."""

    MEMORY = "memory"  # less at once may go
    STICKY = "sticky"  # every later run fails as well, until the process is replaced
    ENDED = "ended"  # we asked for it
    OTHER = "other"


def fault_of(error: BaseException) -> Fault:
    """The kind of an error that a run raised."""
    text = str(error)
    if ENDED.search(text):
        return Fault.ENDED
    if STICKY.search(text):
        return Fault.STICKY
    return Fault.MEMORY if isinstance(error, MemoryError) or MEMORY.search(text) else Fault.OTHER
