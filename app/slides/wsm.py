"""Which DICOM object do results of a slide refer to? The one that holds the pixels of level 0.

Only attributes are read, and of label and overview images only those that tell them apart. Needs the extra `dicom`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from app.formats import dicomparts  # noqa: F401 - before anything is read: nothing may be said of a patient in a log
from app.nuclei.errors import InvalidImage

_TELLING = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ImageType"),
    *("TotalPixelMatrixColumns", "TotalPixelMatrixRows", "ConcatenationUID"),
]


class Level0(NamedTuple):
    """The level-0 image: its attributes without pixels, and the digest of them as they lie in the file."""

    image: Dataset
    header_sha256: str


def level0(path: Path, width: int, height: int) -> Level0:
    """Find the object that holds level 0.

    Args:
        path: of the slide, which was read as DICOM: a file, beside which the other levels may lie, or their folder.
        width, height: of level 0.

    Raises:
        InvalidImage: if no single object holds all of level 0, or a file is damaged.
    """
    try:
        files = sorted(each for each in (path if path.is_dir() else path.parent).iterdir() if _is_dicom(each))
        opened = path if path.is_file() else next(each for each in files if each.suffix.lower() == ".dcm")
        series = _telling(opened).get("SeriesInstanceUID")
        found: dict[str, tuple[Path, bool]] = {}  # by UID: a copy of a file is no other object
        for file in files:
            said = _telling(file)
            if said.get("SeriesInstanceUID") == series and _is_level0(said, width, height):
                found.setdefault(str(said.get("SOPInstanceUID")), (file, "ConcatenationUID" in said))
        if not found:
            raise InvalidImage("no DICOM file of this slide holds level 0 as a VOLUME image")
        if len(found) > 1 or any(in_parts for _, in_parts in found.values()):
            raise InvalidImage("level 0 lies in several DICOM files, and results can refer to one alone")
        [(file, _)] = found.values()
        return _read(file)
    except InvalidImage:
        raise
    except Exception as error:  # a broken file makes the library raise almost anything
        raise InvalidImage("the slide's DICOM attributes cannot be read: a file is truncated or broken") from error


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _telling(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True, specific_tags=list(_TELLING))


def _is_level0(said: Dataset, width: int, height: int) -> bool:
    size = said.get("TotalPixelMatrixColumns"), said.get("TotalPixelMatrixRows")
    is_volume = said.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage and "VOLUME" in said.get("ImageType", ())
    return is_volume and size == (width, height)


def _read(path: Path) -> Level0:
    with path.open("rb") as file:
        image = dcmread(file, stop_before_pixels=True)
        end = file.tell()
        file.seek(0)
        return Level0(image, hashlib.sha256(file.read(end)).hexdigest())
