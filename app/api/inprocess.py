"""How is one image analysed without a server, by the same parts and with the same refusals?"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from app.api.analysis import CSV, GEOJSON, HOVERNET, WRITERS, Analysis, Limits, Result, scale
from app.api.decoding import DecodedImage, decode
from app.formats import overlay
from app.nuclei import tiling, views
from app.nuclei.artifact import Artifact, Manifest, load_artifact
from app.nuclei.segmenter import SAME_SCALE, Segmenter
from app.nuclei.types import Engine, HoverMaps, Mpp, Profile, UInt8
from app.nuclei.views import View
from app.serving.device import Opener, open_on
from app.settings import Settings

ENDINGS = {".geojson": GEOJSON, ".csv": CSV, ".json": HOVERNET}


@dataclass(frozen=True)
class Counting:
    """An engine that moves a progress bar on by the patches it has seen."""

    engine: Engine
    bar: tqdm[None]

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)  # provider, device, precision

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `Engine`."""
        maps = self.engine.predict(patches)
        self.bar.update(len(patches))
        return maps

    def predict_views(self, patches: UInt8, chosen: Sequence[View]) -> HoverMaps:
        """Mean over several views, as the engine likes it best."""
        maps = views.predict(self.engine, patches, chosen)
        self.bar.update(len(patches) * len(chosen))
        return maps


def analyse(data: bytes, settings: Settings, mpp: float | None, profile: Profile | None) -> Result:
    """Decode an image and find its nuclei.

    Args:
        data: the bytes of a PNG, JPEG or TIFF.
        settings: model, device and limits.
        mpp: um per pixel, if the caller knows.
        profile: views to average; the setting, else as the device suggests, if None.

    Raises:
        Refusal, ArtifactError, EngineUnavailable: as the service would say it.
    """
    limits = Limits(settings.max_pixels, settings.min_mpp, settings.max_mpp)
    image = decode(data, limits.max_pixels)
    um = scale(mpp, image, limits)
    artifact = load_artifact(settings.model, settings.model_store)
    engine = opener_of(settings)(artifact)
    profile = profile or settings.profile or Segmenter(artifact, engine).default_profile
    with _bar(image, um, artifact.manifest, profile) as bar:
        analysis = Analysis(artifact, Counting(engine, bar), limits, _unobserved, settings.revision)
        return analysis.run(image, um, profile, uuid.uuid4().hex)


def opener_of(settings: Settings) -> Callable[[Artifact], Engine]:
    """Opens models where and as the settings say, and tells on standard error what it cannot do so."""
    opener = Opener(settings.precision, settings.gpu_memory, warn=_tell_precision)
    return partial(open_on, settings.device, threads=settings.threads, open_engine=opener)


def _tell_precision(reason: str) -> None:
    print(f"karyon: calculates in float32, {reason}", file=sys.stderr)


def write(result: Result, ending: str) -> bytes:
    """The file that an ending stands for; `.png` is the image itself with outlines and a legend."""
    if ending == ".png":
        return overlay.png(result.segmentation, result.image.pixels, legend=True)
    return WRITERS[ENDINGS[ending]](result)


def describe(result: Result) -> str:
    """Counts and technical warnings in a few lines."""
    found = result.segmentation
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items() if count) or "no nuclei"
    codes = f" ({', '.join(found.qc.codes)})" if found.qc.codes else ""
    return (
        f"{len(found.nuclei)} nuclei: {counts}\n"
        f"technical check: {found.qc.verdict}{codes}\n"
        f"scale: {found.mpp.x:g} um per pixel ({found.mpp.source}); model {result.manifest.name}@"
        f"{result.manifest.version}, {result.manifest.licence}\nresearch use only"
    )


@contextmanager
def _bar(image: DecodedImage, mpp: Mpp | None, manifest: Manifest, profile: Profile) -> Iterator[tqdm[None]]:
    factors = np.array([mpp.y, mpp.x]) / manifest.mpp if mpp else np.ones(2)
    factors = np.where(np.abs(factors - 1).max() <= SAME_SCALE, 1, factors)
    height, width = (max(1, round(n * f)) for n, f in zip(image.pixels.shape, factors, strict=False))
    patches = len(tiling.plan(height, width, manifest.patch_sizes, manifest.margin))
    total = patches * len(manifest.views(profile))
    with tqdm(total=total, unit="patch", leave=False, disable=None if total > 1 else True) as bar:
        yield bar


def _unobserved(stage: str, seconds: float) -> None:
    """Nobody watches."""
