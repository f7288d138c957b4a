"""The domain: arrays in, nuclei out."""

from app.nuclei.artifact import Artifact, load_artifact
from app.nuclei.segmenter import Segmenter
from app.nuclei.types import HoverMaps, Mpp, Nuclei, Segmentation

__all__ = ["Artifact", "HoverMaps", "Mpp", "Nuclei", "Segmentation", "Segmenter", "load_artifact"]
