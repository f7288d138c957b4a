"""Drawn tissue, and a true engine without weights that finds it."""

from __future__ import annotations

import cv2
import numpy as np

from app.nuclei.targets import hv_targets
from app.nuclei.types import HoverMaps, Int32, UInt8


class InkEngine:
    """Calls dark blobs nuclei: true maps without weights, the same from every side."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def predict(self, patches: UInt8) -> HoverMaps:
        self.calls.append(patches.shape)
        labels = np.stack([label_ink(patch) for patch in patches])
        np_prob = (labels > 0).astype(np.float32)
        kinds = np.where(labels > 0, 1 + patches[..., 0] % 6, 0)
        return HoverMaps(np_prob, np.stack([hv_targets(m) for m in labels]), np.eye(7, dtype=np.float32)[kinds])


def label_ink(image: UInt8) -> Int32:
    """Dark blobs of (H, W, 3), numbered."""
    return np.asarray(cv2.connectedComponents((image.mean(-1) < 128).astype(np.uint8), connectivity=4)[1], np.int32)


def draw_tissue(height: int, width: int, seed: int = 0, spacing: int = 24) -> UInt8:
    """Pink ground with dark discs that do not touch; a disc's red value gives its class."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (230, 180, 210), np.uint8)
    for row in range(spacing // 2, height, spacing):
        for col in range(spacing // 2, width, spacing):
            radius, kind = rng.integers(4, spacing // 2 - 3), rng.integers(6)
            cv2.circle(image, (col, row), int(radius), (60 + int(kind), 30, 90), -1)
    return image
