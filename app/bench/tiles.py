"""What is sent? Real tissue, in the tiles that a viewer would send."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import immunohistochemistry

SIDE = 256
QUALITY = 90
MOST = 64
Place = tuple[int, int]
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})


def load_tiles(folder: Path | None = None, most: int = MOST) -> list[bytes]:
    """Tiles of 256 x 256 pixels as JPEG files, quality 90.

    Args:
        folder: of images, taken in the order of their names; the tissue that scikit-image ships if None.
        most: tiles at most; they are spread over all that the images give.

    Raises:
        ValueError: no image of the folder has room for one tile.
        OSError: the folder or an image cannot be read.
    """
    if folder is None:
        image = Image.fromarray(immunohistochemistry())  # type: ignore[no-untyped-call]
        return [as_jpeg(image, place) for place in corners(*image.size)[:most]]
    places = [(path, place) for path in _images(folder) for place in corners(*_size(path))]
    if not places:
        raise ValueError(f"{folder} holds no PNG, JPEG or TIFF of at least {SIDE} x {SIDE} pixels")
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)
    return [_read(*places[i]) for i in chosen]


def corners(width: int, height: int) -> list[Place]:
    """Top left corners (x, y) of the whole tiles of an image, row by row; what remains right and below is left out."""
    return [(x, y) for y in range(0, height - SIDE + 1, SIDE) for x in range(0, width - SIDE + 1, SIDE)]


def as_jpeg(image: Image.Image, place: Place) -> bytes:
    """The tile of an image whose top left corner is at a place, as a JPEG file."""
    x, y = place
    file = io.BytesIO()
    image.crop((x, y, x + SIDE, y + SIDE)).convert("RGB").save(file, "jpeg", quality=QUALITY)
    return file.getvalue()


def _images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:  # its header only
        return image.size


def _read(path: Path, place: Place) -> bytes:
    with Image.open(path) as image:
        return as_jpeg(image, place)
