"""How much work is an image? Known from its size and scale alone, before a pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from app.nuclei import tiling
from app.nuclei.artifact import Artifact, Manifest
from app.nuclei.segmenter import SAME_SCALE
from app.nuclei.types import Mpp, Profile
from app.serving.queued import bucket_of
from app.serving.work import Bucket


@dataclass(frozen=True, slots=True)
class Price:
    """Patches of an image, the bucket that they fall into, and their cost together."""

    bucket: Bucket
    patches: int
    cost: float


def price(artifact: Artifact, height: int, width: int, mpp: Mpp | None, profile: Profile) -> Price:
    """What an image of so many pixels takes.

    Args:
        artifact: the model.
        height, width: of the image, at least 1.
        mpp: its scale; None is the model's own.
        profile: views that are averaged.
    """
    manifest = artifact.manifest
    plan = tiling.plan(*grid_size(manifest, height, width, mpp), manifest.patch_sizes, manifest.margin)
    bucket = bucket_of(artifact, manifest.views(profile), plan.patch)
    return Price(bucket, len(plan), len(plan) * bucket.cost(len(manifest.members)))


def grid_size(manifest: Manifest, height: int, width: int, mpp: Mpp | None) -> tuple[int, int]:
    """(height, width) of an image at the model's scale."""
    x, y = (mpp.x / manifest.mpp, mpp.y / manifest.mpp) if mpp else (1.0, 1.0)
    if max(abs(x - 1), abs(y - 1)) <= SAME_SCALE:
        return height, width
    return max(1, round(height * y)), max(1, round(width * x))
