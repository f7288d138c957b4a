"""How does memory that nobody uses go back to the system?

glibc keeps freed pieces of up to 32 MB for the next to come, in an arena for each of the threads: after a large image
that is hundreds of megabytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Let the C library return what it holds for later; it does nothing where that library is not glibc."""
    _trimmer()()


@cache
def _trimmer() -> Callable[[], object]:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda: None
    return lambda: trim(0)
