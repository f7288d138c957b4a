"""How does a window become a tile of the store? The same steps whatever runs the model and whoever asks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.formats.document import RequestContext, config_sha256, provenance
from app.nuclei.artifact import Artifact
from app.nuclei.errors import Abandoned, InferenceFailed, Refusal
from app.nuclei.segmenter import Segmenter
from app.nuclei.separation import SeparatorFault
from app.nuclei.types import Mpp, Profile, Segmentation, UInt8
from app.slides.places import Place
from app.slides.records import ModelKey, NewTile
from app.slides.regions import Grid, read_window
from app.slides.sources import Source
from app.slides.windows import Area, Window


@dataclass(frozen=True)
class Analyst:
    """A model that looks at the windows of one slide.

    Attributes:
        artifact: the model.
        profile: views that are averaged.
        segmenter: opens what finds nuclei, for one window at a time; several may be open.
        context: what answers say besides their nuclei, from the digest of what was analysed.
        cancel: gives up all that is open; what runs ends soon with `Abandoned`.
        found: told of each window's nuclei, those in its margin among them.
    """

    artifact: Artifact
    profile: Profile
    segmenter: Callable[[], AbstractContextManager[Segmenter]]
    context: Callable[[str], RequestContext]
    cancel: Callable[[], None] = lambda: None
    found: Callable[[Segmentation], None] = lambda segmentation: None

    def key(self, mpp: Mpp) -> ModelKey:
        """By what results of this model and profile are told from others."""
        return model_key(self.artifact, self.profile, mpp, self.context("").thresholds)

    def tile(self, source: Source, grid: Grid, window: Window, wanted: Sequence[bool], mpp: Mpp) -> NewTile:
        """Analyse a window.

        Args:
            source: the slide.
            grid: of the slide at the model's scale.
            window: what is looked at.
            wanted: which of its patches the network sees.
            mpp: of level 0.

        Raises:
            InvalidImage: if pixels there are damaged.
            InferenceFailed: if model or separation fail.
            Refusal: as the model's queue.
            SeparatorFault: as the separator; another attempt may succeed.
            Abandoned: after `cancel`.
        """
        slide = Area(0, 0, grid.width, grid.height)
        read = window.read.within(slide)
        pixels, step = read_window(source, grid, read.x0, read.y0, *read.size), (grid.scale_x, grid.scale_y)
        try:
            with self.segmenter() as segmenter:
                maps = segmenter.maps(pixels, self.profile, window.plan(slide), wanted)
                rows, cols = _inside(window.seen, read)
                seen = np.ascontiguousarray(pixels[rows, cols])
                found = segmenter.nuclei(seen, maps[rows, cols], mpp, step, self.profile)
        except (Refusal, Abandoned, SeparatorFault):
            raise
        except Exception as error:
            raise InferenceFailed("the model failed on a window of the slide") from error
        self.found(found)
        level = source.levels[0]
        return self._tile(found, window.place(grid, (level.width, level.height)), step, seen)

    def _tile(self, found: Segmentation, place: Place, step: tuple[float, float], pixels: UInt8) -> NewTile:
        digest = hashlib.sha256(pixels.data).hexdigest()
        return NewTile(
            place=place,
            content_sha256=digest,
            model=self.key(found.mpp),
            nuclei=found.nuclei,
            step=step,
            qc=found.qc,
            provenance=provenance(found, self.context(digest)),
            by_job=True,
            mpp=found.mpp,
        )


def model_key(artifact: Artifact, profile: Profile, mpp: Mpp, thresholds: Mapping[str, Any]) -> ModelKey:
    """By what results are told from those of another model, or of the same with other settings."""
    config = config_sha256(thresholds, profile, mpp)
    return ModelKey(artifact.name, artifact.version, artifact.sha256, config, profile)


def _inside(part: Area, whole: Area) -> tuple[slice, slice]:
    return slice(part.y0 - whole.y0, part.y1 - whole.y0), slice(part.x0 - whole.x0, part.x1 - whole.x0)
