"""From the bytes of a tile to the bytes of its GeoJSON, in one call and without any serving: what rivals serve."""

from __future__ import annotations

import cv2

from app.api.analysis import GEOJSON, WRITERS, Analysis, Limits
from app.api.decoding import decode
from app.bench.tiles import load_tiles
from app.nuclei import hover, load_artifact
from app.nuclei.engine import OnnxEngine
from app.nuclei.types import Mpp

MAX_PIXELS = 25_000_000


def _ignore(stage: str, seconds: float) -> None:
    """Nobody watches."""


class Whole:
    """Decode, network, separation, description, GeoJSON; may be called by many threads."""

    def __init__(self) -> None:
        """Opens the shipped model with as many threads as the service would."""
        cv2.setNumThreads(1)
        artifact = load_artifact("karyon-lite")
        limits = Limits(MAX_PIXELS, 0.1, 2.0)
        self._analysis = Analysis(artifact, OnnxEngine.open(artifact), limits, _ignore)

    def __call__(self, body: bytes) -> bytes:
        """A JPEG at 0.5 um per pixel to GeoJSON."""
        result = self._analysis.run(decode(body, MAX_PIXELS), Mpp(0.5, 0.5), "fast", "rival")
        return WRITERS[GEOJSON](result)

    def warm(self) -> None:
        """Compile what is compiled at its first use."""
        hover.warm_up()
        for tile in load_tiles():
            self(tile)
