"""What was used lately and may be wanted again, within a number of bytes?"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Values by key; the least used ones leave first. Any thread may use it."""

    def __init__(self, max_bytes: int) -> None:
        """Empty.

        Args:
            max_bytes: that all values may have together; 0 keeps nothing.
        """
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    @property
    def used_bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def get(self, key: Hashable) -> Value | None:
        """The value, None if it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value; one larger than everything that may be kept is not."""
        with self._lock:
            if size > self._max_bytes:
                return
            _, before = self._kept.pop(key, (None, 0))
            self._kept[key] = (value, size)
            self._bytes += size - before
            while self._bytes > self._max_bytes:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed
