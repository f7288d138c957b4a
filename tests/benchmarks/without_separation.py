"""What is the service without post-processing? `karyon serve`, but every image has no nuclei.

    python -m tests.benchmarks.without_separation serve --port 0

For the benchmark that compares queue, HTTP and decoding with the bare network; everything else is the real service.
"""

from __future__ import annotations

import inspect
import sys

import numpy as np

from app.cli import main
from app.nuclei import instances, qc
from app.nuclei.segmenter import Segmenter
from app.nuclei.types import HoverMaps, Mpp, Profile, Segmentation, UInt8

UNSEEN = qc.assess(np.full((64, 64, 3), 255, np.uint8), 0, Mpp(0.5, 0.5))  # the technical check is left out as well


def nothing(
    self: Segmenter, image: UInt8, maps: HoverMaps, mpp: Mpp, step: tuple[float, float], profile: Profile
) -> Segmentation:
    """The result of an image, as if no pixel were nucleus; no map is looked at."""
    height, width = image.shape[:2]
    grid = np.zeros(maps.np_prob.shape, np.int32)
    nuclei = instances.describe(grid, maps.type_prob, step)
    return Segmentation(grid, nuclei, height, width, mpp, self.artifact.manifest.mpp, profile, UNSEEN)


if __name__ == "__main__":
    asked, taken = (list(inspect.signature(one).parameters) for one in (Segmenter.nuclei, nothing))
    assert asked == taken, f"the step that is left out takes {asked} now"
    Segmenter.nuclei = nothing  # type: ignore[method-assign]
    sys.exit(main())
