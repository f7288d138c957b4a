"""How do samples of any kind become 8-bit RGB?"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.nuclei.types import UInt8

Alpha = Literal["straight", "premultiplied", "ignored"]


def rgb(stored: npt.NDArray[Any], alpha: Alpha = "straight") -> UInt8:
    """Grey or colour samples as RGB.

    Args:
        stored: (H, W) or (H, W, C) of bool, uint8 or uint16; C is 1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha.
        alpha: what the last of 2 or 4 channels means; what is transparent lies on white, as a slide's empty glass.

    Returns:
        (H, W, 3) uint8, contiguous.
    """
    pixels = eight_bits(stored)
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    channels = pixels.shape[2]
    colour = pixels[..., :3] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    if channels in (2, 4) and alpha != "ignored":
        colour = over_white(colour, pixels[..., -1:], alpha == "premultiplied")
    return np.ascontiguousarray(colour)


def eight_bits(stored: npt.NDArray[Any]) -> UInt8:
    """uint16 by its high byte (value // 256), bool as 0 and 255, uint8 as it is."""
    if stored.dtype == np.bool_:
        return stored.astype(np.uint8) * np.uint8(255)
    high: UInt8 = (np.right_shift(stored, 8) if stored.dtype == np.uint16 else stored).astype(np.uint8, copy=False)
    return high


def over_white(colour: UInt8, alpha: UInt8, premultiplied: bool) -> UInt8:
    """Colour (H, W, 3) with opacity (H, W, 1) laid over white, rounded to nearest."""
    opacity = alpha.astype(np.uint32)
    ink = colour * (np.uint32(255) if premultiplied else opacity)
    mixed = np.minimum(ink + 255 * (255 - opacity), 255 * 255)
    laid: UInt8 = ((mixed + 127) // 255).astype(np.uint8)
    return laid
