"""How does an image of one resolution become one of another? Its nuclei and their classes come along."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from app.nuclei.types import Int32
from training.data.sample import Sample


def at_mpp(sample: Sample, mpp: float) -> Sample:
    """The sample at another resolution; the same one if it has that already.

    Args:
        sample: any.
        mpp: wanted, um per pixel.

    Returns:
        Sides are rounded to whole pixels, at least one. The image is averaged over areas when it shrinks, else
        interpolated; the instance map takes the nearest pixel, so that a nucleus smaller than a new pixel may vanish.

    Raises:
        ValueError: mpp is not above 0.
    """
    if not mpp > 0:
        raise ValueError(f"mpp must be above 0 um per pixel, got {mpp}")
    if mpp == sample.mpp:
        return sample
    height, width = (max(round(n * sample.mpp / mpp), 1) for n in sample.instance_map.shape)
    way = cv2.INTER_AREA if mpp > sample.mpp else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(np.ascontiguousarray(sample.image), (width, height), interpolation=way), np.uint8)
    return dataclasses.replace(sample, image=image, instance_map=nearest(sample.instance_map, height, width), mpp=mpp)


def nearest(instance_map: Int32, height: int, width: int) -> Int32:
    """(height, width) of the pixels under the new centres; OpenCV's own nearest looks up to half a pixel aside."""
    rows, cols = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip((height, width), instance_map.shape, strict=True)
    )
    return np.asarray(instance_map[rows[:, None], cols[None, :]], np.int32)
