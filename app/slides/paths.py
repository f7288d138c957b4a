"""Which files may be opened at a caller's word? Those below the slide root, and nothing that leads out of it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from app.nuclei.errors import InvalidParameter, NotFound, UnsupportedMediaType

SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".btf", ".ndpi", ".scn", ".bif", ".svslide", ".dcm", ".mrxs", ".png", ".jpg", ".jpeg"}
)
"""Read from the slide root. Formats whose index names other files by path (VMS, VMU) are left out."""
IN_ONE_FILE = SUFFIXES - {".mrxs"}
"""Taken as an upload: an MRXS is a file beside a folder."""
_ABSENT = "there is no such slide below the slide root"


def below(root: Path, given: str) -> Path:
    """The file or DICOM folder that a caller names, links resolved.

    Args:
        root: the slide root.
        given: relative path with forward slashes, as the caller wrote it.

    Raises:
        InvalidParameter: if it is absolute, climbs (`..`), or holds what no path holds.
        NotFound: if there is nothing, or it leads out of the root: the answer does not tell which.
        UnsupportedMediaType: if its suffix is not one of a slide.
    """
    parts = PurePosixPath(given).parts
    if not parts or given.startswith(("/", "\\", "~")) or ".." in parts or "\0" in given or "\\" in given:
        raise InvalidParameter("path", "path is relative to the slide root, with forward slashes and without ..")
    path = _inside(root, root / given)
    if not path.is_dir() and path.suffix.lower() not in SUFFIXES:
        raise UnsupportedMediaType(f"slides end in {', '.join(sorted(SUFFIXES))}, or are a folder of DICOM files")
    for beside in _read_along(path):
        _inside(root, beside)
    return path


def check_suffix(filename: str | None) -> str:
    """The suffix of an uploaded file's name, in lower case; nothing else of the name is used.

    Raises:
        UnsupportedMediaType: if it is not one of a slide in one file.
    """
    suffix = PurePosixPath((filename or "").replace("\\", "/")).suffix.lower()
    if suffix not in IN_ONE_FILE:
        raise UnsupportedMediaType(f"filename must end in one of {', '.join(sorted(IN_ONE_FILE))}")
    return suffix


def _read_along(path: Path) -> list[Path]:
    """What the reader opens together with `path`: DICOM files lie side by side, an MRXS has a folder of its name."""
    if path.is_dir():
        return list(path.iterdir())
    if path.suffix.lower() == ".dcm":
        return [each for each in path.parent.iterdir() if each.is_symlink() or each.is_file()]
    if path.suffix.lower() == ".mrxs" and path.with_suffix("").is_dir():
        return [path.with_suffix(""), *path.with_suffix("").iterdir()]
    return []


def _inside(root: Path, path: Path) -> Path:
    try:
        resolved, top = path.resolve(strict=True), root.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise NotFound(_ABSENT) from None
    if not resolved.is_relative_to(top) or not (resolved.is_file() or resolved.is_dir()):
        raise NotFound(_ABSENT)
    return resolved
