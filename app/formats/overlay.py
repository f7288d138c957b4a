"""How does one see at a glance what was found?

Outlines in the class colours. Each is drawn from the label map itself: a coloured line on the nucleus' own outermost
pixels, and a faint rim on the background around it, pale for deep colours and dark for light ones, so that it reads on
glass, stroma and chromatin alike, and neighbours never paint over each other.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Int32, Segmentation, UInt8

MEDIA_TYPE = "image/png"

_DARK, _PALE = (20, 20, 30, 120), (255, 255, 255, 150)  # see-through: tissue under a rim stays visible
OPEN = (160, 160, 160)  # a nucleus whose class stayed open
_LEGEND_SIDE, _MOST_TIMES = 1024, 4  # a picture with legend is enlarged by a whole number to about this side
CROSS = np.asarray(cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), np.uint8)

Bool = npt.NDArray[np.bool_]


def rim(colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The faint rim, RGBA, that makes a line of this colour readable on any ground."""
    return _PALE if sum(colour) < 330 else _DARK


COLOURS = np.array([OPEN, *(c.colour for c in CLASSES)], np.uint8)
RIMS = np.array([rim(c) for c in (OPEN, *(c.colour for c in CLASSES))], np.uint8)


def png(segmentation: Segmentation, image: UInt8 | None = None, legend: bool = False) -> bytes:
    """Outlines as PNG, RGBA.

    Args:
        segmentation: the analysed image.
        image: (H, W, 3) uint8 RGB, the caller's, to draw over; without it the ground is transparent.
        legend: put class names, colours and counts below; a small picture is then enlarged, at most four times.

    Returns:
        A picture of the caller's size, unless it has a legend.
    """
    fits = _LEGEND_SIDE // max(segmentation.height, segmentation.width)
    grow = min(max(1, fits), _MOST_TIMES) if legend else 1
    lines = outlines(_grown(segmentation.instance_map, grow), _types(segmentation), 1 + grow // 2)
    picture = lines if image is None else over(lines, _enlarged(image, grow))
    if legend:
        picture = _with_legend(picture, segmentation)
    # Level 1: lines on a plain ground pack well anyway, and higher levels take several times as long.
    written, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not written:
        raise RuntimeError("OpenCV could not write a PNG")
    return data.tobytes()


def outlines(instance_map: Int32, types: UInt8, width: int = 1) -> UInt8:
    """Coloured lines on a transparent ground.

    Args:
        instance_map: (H, W) int32, 0 background, 1..N.
        types: (N + 1,) uint8, class of each number; entry 0 is not used.
        width: of a line, in pixels.

    Returns:
        (H, W, 4) uint8 RGBA. Colour and rim never cover a neighbour's colour.
    """
    inside = instance_map > 0
    line = inside & ~_kept(instance_map, width)
    nearest = _spread(instance_map)
    rim = ~inside & (nearest > 0)
    picture = np.zeros((*instance_map.shape, 4), np.uint8)
    picture[rim] = RIMS[types[nearest[rim]]]
    picture[line, :3] = COLOURS[types[instance_map[line]]]
    picture[line, 3] = 255
    return picture


def over(lines: UInt8, image: UInt8) -> UInt8:
    """(H, W, 4) lines laid over an (H, W, 3) image; opaque."""
    alpha = lines[..., 3:].astype(np.uint16)
    blended = (lines[..., :3] * alpha + image * (255 - alpha) + 127) // 255
    return np.dstack([blended.astype(np.uint8), np.full(image.shape[:2], 255, np.uint8)])


def _kept(instance_map: Int32, width: int) -> Bool:
    """Pixels whose neighbours, `width` steps around, are all of the same nucleus; the border closes it, as its ring."""
    rimmed = np.pad(instance_map, width).astype(np.float32)  # exact up to 16 million; OpenCV knows no int32 here
    same: Bool = cv2.erode(rimmed, CROSS, iterations=width) == cv2.dilate(rimmed, CROSS, iterations=width)
    return same[width:-width, width:-width]


def _spread(instance_map: Int32) -> Int32:
    """Each pixel's highest number among itself and its four neighbours."""
    return np.asarray(cv2.dilate(instance_map.astype(np.float32), CROSS), np.float32).astype(np.int32)


def _types(segmentation: Segmentation) -> UInt8:
    return np.concatenate([np.zeros(1, np.uint8), segmentation.nuclei.type])


def _grown(instance_map: Int32, times: int) -> Int32:
    return np.repeat(np.repeat(instance_map, times, axis=0), times, axis=1) if times > 1 else instance_map


def _enlarged(image: UInt8, times: int) -> UInt8:
    if times == 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC), np.uint8)


def _with_legend(picture: UInt8, segmentation: Segmentation) -> UInt8:
    """The picture with a white strip below: colour, name and count of each class, in as few rows as fit."""
    font = ImageFont.load_default(18)
    entries = [(c.colour, f"{c.name}  {segmentation.counts[c.name]}") for c in CLASSES]
    if rest := len(segmentation.nuclei) - sum(segmentation.counts.values()):
        entries.append((OPEN, f"unclassified  {rest}"))
    cell_width = 46 + round(max(font.getlength(text) for _, text in entries))
    width = max(picture.shape[1], cell_width)
    rows = -(-len(entries) // min(len(entries), width // cell_width))
    columns = -(-len(entries) // rows)  # as many in each row
    sheet = Image.new("RGBA", (width, picture.shape[0] + 12 + 30 * rows), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for i, (colour, text) in enumerate(entries):
        left, top = (i % columns) * (width // columns) + 12, picture.shape[0] + 8 + 30 * (i // columns)
        draw.rectangle((left, top + 5, left + 17, top + 22), fill=colour, outline=(20, 20, 30))
        draw.text((left + 26, top + 13), text, fill=(20, 20, 30), font=font, anchor="lm")
    return np.asarray(sheet)
