"""What jobs need, without a queue, a network or a service."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import tifffile

from app.formats.document import ModelFacts, RequestContext, Runtime
from app.nuclei.artifact import Artifact, open_folder
from app.nuclei.segmenter import Segmenter
from app.nuclei.types import Engine, Mpp, Nuclei, Profile, UInt8
from app.slides.analyst import Analyst
from app.slides.jobbook import NewJob
from app.slides.library import Library
from app.slides.places import Box
from app.slides.reading import walk
from app.slides.records import Slide
from tests.built import build_model
from tests.drawn import draw_tissue

HALF = Mpp(0.5, 0.5)


def ink_model(folder: Path, engine: Engine) -> Artifact:
    """A model that calls ink nuclei, in patches of 256 with a margin of 64."""
    return open_folder(build_model(folder, engine, draw_tissue(256, 256), patch_sizes=[256], margin=64))


def analyst(artifact: Artifact, engine: Engine, profile: Profile = "fast") -> Analyst:
    """Looks with an engine of its own."""
    manifest = artifact.manifest
    facts = ModelFacts("ink", "1", artifact.sha256, ("ink",), manifest.licence, manifest.training_data)
    context = RequestContext(
        *("job", datetime(2026, 1, 1, tzinfo=UTC), "0", "unknown", "", facts),
        *({"postprocess": asdict(manifest.postprocess)}, Runtime("cpu", "none", "float32")),
    )
    segmenter = Segmenter(artifact, engine)
    return Analyst(
        artifact, profile, lambda: nullcontext(segmenter), lambda sha256: replace(context, input_sha256=sha256)
    )


def rooted(library: Library, image: UInt8, name: str = "slide.tif", mpp: Mpp | None = HALF) -> Slide:
    """A slide below the root, as a tiled TIFF."""
    assert library.root is not None
    tifffile.imwrite(library.root / name, image, tile=(128, 128), photometric="rgb")
    return library.add_path(name, mpp)


def new_job(slide: Slide, artifact: Artifact, region: Box | None = None, mpp: Mpp = HALF) -> NewJob:
    """The whole slide, or a part of it."""
    region = region or Box(0, 0, slide.width, slide.height)
    return NewJob(slide.id, region, "fast", artifact.name, artifact.version, artifact.sha256, mpp)


def kept(library: Library, slide: Slide) -> list[Nuclei]:
    """All counted nuclei, tile by tile."""
    return [each.nuclei for each in walk(library.store.database, slide.id)]
