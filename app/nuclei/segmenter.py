"""One image in, its nuclei out: the one way that service, command line and evaluation share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from app.nuclei import qc, tiling, views
from app.nuclei.artifact import Artifact
from app.nuclei.engine import CUDA, OnnxEngine
from app.nuclei.errors import InferenceFailed, InvalidImage, InvalidParameter
from app.nuclei.separation import HERE, Method, Separator
from app.nuclei.types import Engine, HoverMaps, Mpp, Profile, Segmentation, UInt8

SAME_SCALE = 0.02
"""An image within 2 % of the model's mpp is not resampled: that would blur more than the scale is off."""


def _ignore(stage: str, seconds: float) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Segmenter:
    """A model and the engine that runs it; holds no state between images and may be shared by threads.

    Attributes:
        artifact: verified model folder.
        engine: patches in, maps out; by default the model's own sessions on the CPU.
        observe: told each stage's name and seconds: resample, infer, aggregate, postprocess.
        batch: most patches handed to the engine at once.
        separator: makes nuclei of maps; a service does it in processes of their own, a few images at once.
    """

    artifact: Artifact
    engine: Engine = field(default=None)  # type: ignore[assignment]
    observe: Callable[[str, float], None] = _ignore
    batch: int = 4
    separator: Separator = HERE

    def __post_init__(self) -> None:
        if self.engine is None:
            object.__setattr__(self, "engine", OnnxEngine.open(self.artifact))

    @property
    def default_profile(self) -> Profile:
        """The paper's three views on a GPU, one view on a CPU."""
        return "accurate" if getattr(self.engine, "provider", None) == CUDA else "fast"

    def segment(self, image: UInt8, mpp: float | Mpp | None = None, profile: Profile | None = None) -> Segmentation:
        """Find, separate, describe and classify every nucleus.

        Args:
            image: (H, W, 3) uint8 RGB, any size from 1x1.
            mpp: um per pixel; the model's own, with a warning, if None.
            profile: "fast" (one view) or "accurate" (three); by default as the device suggests.

        Raises:
            InvalidImage: not (H, W, 3) uint8, or without pixels.
            InvalidParameter: mpp is not a finite number above 0, or there is no such profile.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InvalidImage(f"an image is (H, W, 3) uint8 with at least one pixel, not {image.shape} {image.dtype}")
        profile = profile or self.default_profile
        if profile not in self.artifact.manifest.profiles:
            raise InvalidParameter("profile", f"no profile {profile!r}; fast and accurate are there")
        scale = self._mpp(mpp)
        with self._timed("resample"):
            resampled = self._resample(image, scale)
        step = image.shape[1] / resampled.shape[1], image.shape[0] / resampled.shape[0]
        return self.nuclei(image, self.maps(resampled, profile), scale, step, profile)

    def maps(
        self, image: UInt8, profile: Profile, plan: tiling.Tiling | None = None, wanted: Sequence[bool] | None = None
    ) -> HoverMaps:
        """The averaged maps (H, W) of an image that is at the model's mpp already.

        Args:
            image: (H, W, 3) uint8 RGB.
            profile: views that are averaged.
            plan: how the image is cut; as suits its size if None.
            wanted: which patches of the plan the network sees, all if None; the others are taken for background.

        Raises:
            InferenceFailed: a map holds what is no number; without nuclei it would look like empty tissue.
        """
        manifest = self.artifact.manifest
        plan = plan or tiling.plan(image.shape[0], image.shape[1], manifest.patch_sizes, manifest.margin)
        chosen = manifest.views(profile)
        patches = list(plan.cut(image))  # views of the image, not copies
        mosaic, began, inferring = tiling.Mosaic(plan, self.separator.blank), time.perf_counter(), 0.0
        seen = [i for i in range(len(patches)) if wanted is None or wanted[i]]
        for first in range(0, len(seen), self.batch):
            group, asked = seen[first : first + self.batch], time.perf_counter()
            together = views.predict(self.engine, np.stack([patches[i] for i in group]), chosen)
            inferring += time.perf_counter() - asked
            for at, i in enumerate(group):
                mosaic.lay(i, together[at])
            del together  # or it would be kept while the next batch is awaited
        if len(seen) < len(patches):
            nothing = background(plan.patch, len(manifest.classes))
            for i in set(range(len(patches))).difference(seen):
                mosaic.lay(i, nothing)
        whole = finite(mosaic.maps)
        self.observe("infer", inferring)
        self.observe("aggregate", time.perf_counter() - began - inferring)
        return whole

    def nuclei(
        self, image: UInt8, maps: HoverMaps, mpp: Mpp, step: tuple[float, float], profile: Profile
    ) -> Segmentation:
        """What the maps of an image say: its nuclei, separated and described, and the technical check.

        The maps are used up.

        Args:
            image: (H, W, 3) uint8 RGB, at the caller's scale or at that of the maps.
            maps: (h, w), at the model's mpp.
            mpp: of the caller's image.
            step: (x, y), pixels of the caller's image per pixel of the maps.
            profile: whose views were averaged.
        """
        manifest, ballot = self.artifact.manifest, maps.ballot
        with self._timed("postprocess"):
            found = self.separator.separate(maps, Method(manifest.postprocess, manifest.temperature, step))
            del maps  # of a large image they are much memory
            height, width = (max(1, round(n * s)) for n, s in zip(found.grid.shape, step[::-1], strict=True))
            shown = (width / image.shape[1], height / image.shape[0])
            here = replace(mpp, x=mpp.x * shown[0], y=mpp.y * shown[1])
            figures = qc.of_nuclei(found.nuclei, mpp, ballot)
            report = qc.assess(image, len(found.nuclei), here, manifest.qc, figures)
        return Segmentation(
            found.grid,
            found.nuclei,
            height,
            width,
            mpp,
            manifest.mpp,
            profile,
            report,
            repaired=found.repaired,
            dropped=found.dropped,
        )

    def _mpp(self, mpp: float | Mpp | None) -> Mpp:
        if mpp is None:
            own = self.artifact.manifest.mpp
            return Mpp(own, own, "model-default")
        return mpp if isinstance(mpp, Mpp) else Mpp(float(mpp), float(mpp))

    def _resample(self, image: UInt8, mpp: Mpp) -> UInt8:
        own = self.artifact.manifest.mpp
        factors = np.array([mpp.x, mpp.y]) / own
        if (np.abs(factors - 1) <= SAME_SCALE).all():
            return image
        width, height = (max(1, round(n * f)) for n, f in zip(image.shape[1::-1], factors, strict=True))
        how = cv2.INTER_AREA if (factors < 1).all() else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.observe(stage, time.perf_counter() - began)


def background(patch: int, classes: int) -> HoverMaps:
    """The maps (P, P) of a patch without nuclei.

    Args:
        patch: P.
        classes: besides the background.
    """
    type_prob = np.zeros((patch, patch, classes + 1), np.float32)
    type_prob[..., 0] = 1
    return HoverMaps(np.zeros((patch, patch), np.float32), np.zeros((patch, patch, 2), np.float32), type_prob)


def finite(maps: HoverMaps) -> HoverMaps:
    """The maps as they are.

    Raises:
        InferenceFailed: one of them holds NaN or infinity.
    """
    # A sum tells without a mask as large as the map: it is finite only if every value is.
    if not all(np.isfinite(m.sum()) for m in (maps.np_prob, maps.hv, maps.type_prob)):
        raise InferenceFailed("the model gave maps that are not finite")
    return maps
