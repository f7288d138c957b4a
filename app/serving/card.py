"""How much memory of the graphics card is in use? Asked of NVIDIA's management library, where it is installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CardMemory:
    """Memory of one card, in bytes: what all processes use of it, and what it has."""

    used: int
    total: int


class Card:
    """The card that ONNX Runtime takes: the first that this process may see."""

    def __init__(self, library: Any = None) -> None:
        """Nothing is asked yet.

        Args:
            library: the module pynvml; imported when it is needed if None.
        """
        self._library = library
        self._handle: Any = None
        self._absent = False

    def memory(self) -> CardMemory | None:
        """Its memory now; None without a card, a driver or the library, which is then not asked again."""
        if self._absent:
            return None
        try:
            if self._handle is None:
                self._find()
            found = self._library.nvmlDeviceGetMemoryInfo(self._handle)
            return CardMemory(int(found.used), int(found.total))
        except Exception:  # the library has a type of its own for each of its many errors; metrics must go on
            self._absent = True
            return None

    def _find(self) -> None:
        if self._library is None:
            import pynvml  # noqa: PLC0415

            self._library = pynvml
        self._library.nvmlInit()
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        if seen.startswith("GPU-"):
            self._handle = self._library.nvmlDeviceGetHandleByUUID(seen)
        else:
            self._handle = self._library.nvmlDeviceGetHandleByIndex(int(seen or 0))
