"""Which reader takes a slide's file?

OpenSlide reads what scanners write (SVS, NDPI, MRXS, tiled TIFF, DICOM and more); tifffile reads OME-TIFF and the TIFFs
that OpenSlide does not take; a plain PNG or JPEG is decoded once. Label and macro images carry patients' names and are
never opened: no reader touches a page or file that is not a level of the pyramid.
"""

from __future__ import annotations

from pathlib import Path

from app.nuclei.errors import InvalidImage, NotFound, Refusal, UnsupportedMediaType
from app.slides.openslides import OpenSlideSource, detect
from app.slides.plain import PlainSource
from app.slides.sources import Source
from app.slides.tiffs import TiffSource, check_structure, is_ome

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLAIN_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
NO_TIFF = frozenset({"dicom", "mirax", "sakura"})
"""What OpenSlide calls the formats that are taken without being TIFF. Not Hamamatsu's VMS and VMU: under whatever name
such an index comes, it names other files by path, and OpenSlide opens them wherever they lie."""
ANY_TIFF = "generic-tiff"  # OpenSlide's name for a tiled TIFF of no known maker; it knows nothing of OME


def open_source(path: Path) -> Source:
    """Open a slide or big image; only headers are read, except of PNG and JPEG.

    Args:
        path: a file, or a folder that holds the DICOM files of one slide. It must have been checked (see `paths`).

    Raises:
        NotFound: if there is no such file any more.
        InvalidImage: if the file is truncated or broken.
        UnsupportedMediaType: if no reader takes it.
        PayloadTooLarge: if one piece of it would have to be decoded that is too big for memory.
    """
    try:
        return _reader(_dicom_in(path) if path.is_dir() else path)
    except Refusal:
        raise
    except FileNotFoundError:
        raise NotFound("the slide's file is no longer there") from None
    except Exception as error:  # a broken file makes the libraries raise almost anything
        raise InvalidImage("this file cannot be read as a slide: it is truncated or broken") from error


def _dicom_in(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".dcm")
    if not files:
        raise UnsupportedMediaType("the folder holds no DICOM file (.dcm)")
    return files[0]


def _reader(path: Path) -> Source:
    with path.open("rb") as file:
        magic = file.read(8)
    if not magic:
        raise InvalidImage("the file is empty")
    if magic.startswith(PLAIN_MAGIC) and path.suffix.lower() != ".mrxs":  # an .mrxs file is a JPEG beside a folder
        return PlainSource.open(path)
    is_tiff = magic.startswith(TIFF_MAGIC)
    if is_tiff:
        check_structure(path)  # before OpenSlide: what it allocates on a lie would end the process
    vendor = detect(path)
    if is_tiff and (vendor is None or (vendor == ANY_TIFF and is_ome(path))):
        return TiffSource.open(path)
    if vendor is None or not (is_tiff or vendor in NO_TIFF):
        raise UnsupportedMediaType("no reader takes this file: SVS, NDPI, MRXS, TIFF, DICOM, PNG and JPEG are read")
    return OpenSlideSource.open(path, vendor)
