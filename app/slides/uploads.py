"""How does a slide file reach the disk, piece by piece, without ever being half there?

Pieces go to a folder of their own under `incoming/`; only a complete, synced file is renamed to `slides/<id>/`, and
only then is its row committed. Whatever a crash leaves in between has no row, and `Files.sweep` removes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.nuclei.errors import InvalidImage, PayloadTooLarge, StorageFull
from app.slides.records import new_id

CHECK_EVERY = 16 * 2**20  # bytes between two looks at the room that is left
GRACE_S = 3600.0  # younger leftovers may be another replica's work
_FULL = {errno.ENOSPC, errno.EDQUOT}


def _unlimited() -> int | None:
    return None


@dataclass(frozen=True)
class Files:
    """The service's own slide files.

    Attributes:
        folder: holds `incoming/` and `slides/`; made on demand.
        max_bytes: of one upload.
        room: bytes that may still come under the quota, None if there is no quota.
        spare_bytes: of the disk, never touched: the database needs room to delete.
    """

    folder: Path
    max_bytes: int
    room: Callable[[], int | None] = _unlimited
    spare_bytes: int = 256 * 2**20

    def begin(self, suffix: str) -> Upload:
        """Start an upload; use it as a context manager.

        Args:
            suffix: checked by `paths.check_suffix`.

        Raises:
            StorageFull: if there is no room at all.
        """
        return Upload(self, new_id(), suffix)

    def path_of(self, slide_id: str, name: str) -> Path:
        """Where the file of an uploaded slide lies."""
        return self.folder / "slides" / slide_id / name

    def remove(self, slide_id: str) -> None:
        """Remove the file of a slide whose row is gone; nothing happens if there is none."""
        shutil.rmtree(self.folder / "slides" / slide_id, ignore_errors=True)

    def sweep(self, known: Collection[str], grace_s: float = GRACE_S) -> int:
        """Remove what crashes left behind.

        Args:
            known: ids of all slides that have a row.
            grace_s: leftovers younger than this many seconds stay: they may be an upload under way.

        Returns:
            How many leftovers were removed.
        """
        oldest, removed = time.time() - grace_s, 0
        for place, keep in (("incoming", frozenset()), ("slides", frozenset(known))):
            for each in _entries(self.folder / place):
                if each.name not in keep and _age_of(each) <= oldest:
                    shutil.rmtree(each, ignore_errors=True)
                    removed += 1
        return removed

    def check_room(self, more: int) -> None:
        """Refuse bytes for which there is no room.

        Raises:
            StorageFull: by quota, or because the disk's spare bytes would be touched.
        """
        room = self.room()
        if room is not None and more > room:
            raise StorageFull("the store's quota is used up; delete slides that are no longer needed")
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free - self.spare_bytes < more:
            raise StorageFull("the disk of the store is full; nothing of this was kept")


class Upload:
    """One file on its way in.

    Attributes:
        slide_id: that the slide will have.
        name: of the file in the slide's folder.
        size: bytes so far.
    """

    def __init__(self, files: Files, slide_id: str, suffix: str) -> None:
        files.check_room(0)
        self.slide_id, self.name, self.size = slide_id, f"slide{suffix}", 0
        self._files, self._checked, self._digest = files, 0, hashlib.sha256()
        self._folder = files.folder / "incoming" / slide_id
        self._folder.mkdir(parents=True, mode=0o700)
        self._file = (self._folder / self.name).open("xb")

    def announce(self, size: int) -> None:
        """Refuse by the announced size, before a byte was sent.

        Raises:
            PayloadTooLarge: if one upload may not be that large.
            StorageFull: if there is no room for it.
        """
        self._check_size(size)
        self._files.check_room(size)

    def write(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            PayloadTooLarge: if the file becomes larger than one upload may be.
            StorageFull: if there is no room for it.
        """
        self.size += len(piece)
        self._check_size(self.size)
        if self.size - self._checked >= CHECK_EVERY or self._checked == 0:
            self._files.check_room(self.size)
            self._checked = self.size
        try:
            self._file.write(piece)
        except OSError as error:
            raise _as_refusal(error) from None
        self._digest.update(piece)

    def finish(self) -> Path:
        """Make the file durable and put it in its place.

        Raises:
            InvalidImage: if nothing was sent.
            StorageFull: if there is no room for it.
        """
        if not self.size:
            raise InvalidImage("the request holds no slide: the body is empty")
        self._files.check_room(self.size)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _as_refusal(error) from None
        self._file.close()
        home = self._files.folder / "slides" / self.slide_id
        home.parent.mkdir(exist_ok=True)
        self._folder.rename(home)
        for folder in (home, home.parent):
            _sync(folder)
        return home / self.name

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes so far."""
        return self._digest.hexdigest()

    def _check_size(self, size: int) -> None:
        if size > self._files.max_bytes:
            raise PayloadTooLarge(f"a slide file may have {self._files.max_bytes} bytes")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close; what was not finished is removed."""
        self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _as_refusal(error: OSError) -> Exception:
    return StorageFull("the disk of the store is full; nothing of this was kept") if error.errno in _FULL else error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _age_of(path: Path) -> float:
    """When anything in a folder was written last."""
    return max((each.lstat().st_mtime for each in (path, *_entries(path))), default=0.0)
