"""What do results in DICOM have in common, whatever is written?

They belong to the study of the slide, refer to its level-0 image alone, and say what made them, when and how. The
libraries come with the extra `dicom` and take a second to import: the modules that build objects (`dicomparts`,
`dicomann`, `dicomseg`, `dicomsr`) are imported by who calls them.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from app import __version__
from app.formats.document import KARYON_NAMESPACE
from app.nuclei.errors import MissingExtra
from app.nuclei.types import Mpp, Profile

MEDIA_TYPE = "application/dicom"
KINDS = ("ann", "seg", "sr")
NO_DICOM = "DICOM results refer to a DICOM slide; this one is none: take geojson, hovernet, csv or parquet"


def check_installed() -> None:
    """Refuse early what could not be written later.

    Raises:
        MissingExtra: if highdicom is not installed.
    """
    if find_spec("highdicom") is None:
        raise MissingExtra("DICOM results need the extra dicom: pip install karyon[dicom]")


@dataclass(frozen=True)
class Origin:
    """Where results come from.

    Attributes:
        image: attributes of the level-0 image, a pydicom `Dataset` without pixels. It is never changed.
        header_sha256: of these attributes as they lie in the file.
        model, model_version, model_sha256: which model spoke, and the digest of its weights.
        config_sha256: of thresholds, profile, mpp and post-processing.
        profile: which views were averaged.
        mpp: um per pixel of level 0, as the analysis took it.
        made: when the last of the results was made; with a time zone.
        tiles_sha256: digest of the tiles on which the results rest.
        service_version, revision: of Karyon, as it found the nuclei.
    """

    image: Any
    header_sha256: str
    model: str
    model_version: str
    model_sha256: str
    config_sha256: str
    profile: Profile
    mpp: Mpp
    made: datetime
    tiles_sha256: str
    service_version: str
    revision: str

    def uid(self, kind: str, number: int = 0) -> str:
        """A UID that the same results have again: `2.25.` and the UUID as a number (DICOM PS3.5, B.2).

        A UID that stands for other bytes than before would be kept silently by some archives. So everything that goes
        into the object is in its name, the time at which the results were made too.
        """
        parts = (kind, self.header_sha256, self.model_sha256, self.config_sha256, self.tiles_sha256)
        version = (self.made.isoformat(), self.service_version, self.revision, __version__)
        return f"2.25.{uuid.uuid5(KARYON_NAMESPACE, '|'.join((*parts, *version, str(number)))).int}"

    def parameters(self) -> dict[str, str]:
        """What, besides the image, decided the results."""
        return {
            "model_sha256": self.model_sha256,
            "config_sha256": self.config_sha256,
            "profile": self.profile,
            "mpp_x": f"{self.mpp.x:g}",
            "mpp_y": f"{self.mpp.y:g}",
            "mpp_source": self.mpp.source,
            "tiles_sha256": self.tiles_sha256,
        }
