"""Which slide files are open, so that a viewer's hundred tiles a second need not open the file a hundred times?"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.slides.library import Library
from app.slides.records import Slide
from app.slides.sources import Source

MAX_BYTES = 512 * 2**20  # that open slides may hold in memory
OPEN_BYTES = 64 * 2**20  # what one holds at most: decoded tiles and strips
PLAIN = frozenset({"png", "jpeg"})  # these are held decoded as a whole


@dataclass
class _Handle:
    source: Source
    size: int
    users: int = 0
    dropped: bool = False


class Handles:
    """Open slides; the least used ones are closed first. Any thread may use it."""

    def __init__(self, library: Library, max_bytes: int = MAX_BYTES) -> None:
        """Nothing is open yet."""
        self._library, self._max_bytes = library, max_bytes
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Handle] = OrderedDict()
        self._opening = threading.Lock()

    @contextmanager
    def lent(self, slide: Slide) -> Iterator[Source]:
        """The pixels of a slide, open for as long as they are in use.

        Raises:
            Refusal: as `Library.open`.
        """
        handle = self._taken(slide)
        try:
            yield handle.source
        finally:
            with self._lock:
                handle.users -= 1
                done = handle.dropped and handle.users == 0
            if done:
                handle.source.close()
            self._close_spare()

    def forget(self, slide_id: str) -> None:
        """Close a slide that was deleted, once nobody reads it."""
        with self._lock:
            handle = self._open.pop(slide_id, None)
            if handle is None:
                return
            handle.dropped = True
            spare = handle.users == 0
        if spare:
            handle.source.close()

    def close(self) -> None:
        """Close every slide."""
        for slide_id in list(self._open):
            self.forget(slide_id)

    def _taken(self, slide: Slide) -> _Handle:
        try:
            self._library.check(slide)
        except BaseException:
            self.forget(slide.id)
            raise
        if (known := self._known(slide.id)) is not None:
            return known
        # One at a time: a viewer asks for many tiles at once, and a PNG is decoded as a whole when it is opened.
        with self._opening:
            if (known := self._known(slide.id)) is not None:
                return known
            source = self._library.open(slide)
            size = 3 * slide.width * slide.height if source.vendor in PLAIN else OPEN_BYTES
            with self._lock:
                self._open[slide.id] = handle = _Handle(source, size, users=1)
                return handle

    def _known(self, slide_id: str) -> _Handle | None:
        with self._lock:
            if (known := self._open.get(slide_id)) is not None:
                self._open.move_to_end(slide_id)
                known.users += 1
            return known

    def _close_spare(self) -> None:
        with self._lock:
            spare = []
            for slide_id, handle in list(self._open.items()):
                if sum(each.size for each in self._open.values()) <= self._max_bytes:
                    break
                if handle.users == 0:
                    spare.append(self._open.pop(slide_id))
        for handle in spare:
            handle.source.close()
