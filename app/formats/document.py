"""What does every answer say besides its nuclei?

Builds the members that surround the features: `summary`, `coordinate_space`, `qc`, `provenance` and `notice`, and the
identifiers that make a repeated request give the same nuclei.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Mpp, Profile, Segmentation, UInt8

NOTICE = "Research use only. Not for diagnostic procedures."
NOTICE_HEADER = "research-use-only"
KARYON_NAMESPACE = uuid.UUID("8f2d0c57-3a64-4b1e-9d0b-6c1f5e7a42d3")  # never changes: every id rests on it
POSTPROCESSING_VERSION = "1"  # raised whenever the same maps would give other nuclei
UNCERTAIN_BELOW = 0.5  # a nucleus is uncertain when its own class is less likely than all others together

_CORE = slice(16, 240)  # CoNIC counts nuclei with any pixel in the central 224 of 256 rows and columns
_Z95 = 1.959964
_DASHES = [8, 13, 18, 23]
_HEX_AT = np.setdiff1d(np.arange(36), _DASHES)
_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model spoke: its name and version, digest of its weights, members, licence and training data."""

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]
    licence: str
    training_data: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the model ran on, such as cpu, CPUExecutionProvider, float32."""

    device: str
    provider: str
    precision: str


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What a segmentation does not know of itself: who asked for it, and what answered.

    Attributes:
        request_id: names this one request.
        created: when the analysis was made; must carry a time zone.
        service_version, revision: of Karyon.
        input_sha256: hex digest of the bytes received.
        model: which model spoke.
        thresholds: operating point and QC bounds in force.
        runtime: what the model ran on.
        epithelium_is_tumour: the model's card says that its epithelial class stands for tumour.

    Raises:
        ValueError: if `created` has no time zone.
    """

    request_id: str
    created: datetime
    service_version: str
    revision: str
    input_sha256: str
    model: ModelFacts
    thresholds: Mapping[str, Any]
    runtime: Runtime
    epithelium_is_tumour: bool = False

    def __post_init__(self) -> None:
        if self.created.tzinfo is None:
            raise ValueError("created must carry a time zone")

    def config_sha256(self, segmentation: Segmentation) -> str:
        """Digest of all that, besides image and weights, decided this segmentation."""
        return config_sha256(self.thresholds, segmentation.profile, segmentation.mpp)

    def nucleus_ids(self, segmentation: Segmentation) -> UInt8:
        """(N, 36) uint8, ASCII: the identifier of each nucleus, see `nucleus_id_text`."""
        config = self.config_sha256(segmentation)
        return nucleus_id_text(self.input_sha256, self.model.sha256, config, len(segmentation.nuclei))


def members(segmentation: Segmentation, context: RequestContext) -> dict[str, Any]:
    """The five members around the features, in the order in which they are written."""
    return {
        "notice": NOTICE,
        "coordinate_space": coordinate_space(segmentation),
        "summary": summary(segmentation, context.epithelium_is_tumour),
        "qc": qc(segmentation),
        "provenance": provenance(segmentation, context),
    }


def coordinate_space(segmentation: Segmentation) -> dict[str, Any]:
    """What the coordinates mean: pixels of the caller's image, and their size in um."""
    return {
        "unit": "pixel",
        "origin": "top-left",
        "level": 0,
        "width": segmentation.width,
        "height": segmentation.height,
        "mpp_x": segmentation.mpp.x,
        "mpp_y": segmentation.mpp.y,
        "mpp_source": segmentation.mpp.source,
    }


def summary(segmentation: Segmentation, epithelium_is_tumour: bool = False) -> dict[str, Any]:
    """Counts, densities over the whole image, and tumour burden where the model's card allows one.

    Args:
        segmentation: the analysed image.
        epithelium_is_tumour: whether epithelial nuclei stand for tumour.

    Returns:
        As fixed for `summary`: `total` counts every nucleus, also one whose class stayed open; `composition_224` is
        null unless the image is 256x256; `tumour_burden` is null with a reason, or a share with its 95 % interval.
    """
    area_mm2 = segmentation.width * segmentation.height * segmentation.mpp.x * segmentation.mpp.y / 1e6
    counted = summary_of(len(segmentation.nuclei), segmentation.counts, area_mm2, epithelium_is_tumour)
    return counted | {"composition_224": _composition_224(segmentation)}


def summary_of(total: int, counts: Mapping[str, int], area_mm2: float, epithelium_is_tumour: bool) -> dict[str, Any]:
    """The same of nuclei that were counted already, such as those that a tile of a slide answers for.

    Args:
        total: nuclei.
        counts: of them, per class name, zeros included.
        area_mm2: in which they lie.
        epithelium_is_tumour: whether epithelial nuclei stand for tumour.
    """
    burden, reason = _tumour_burden(counts["epithelial"], total, epithelium_is_tumour)
    return {
        "total": total,
        "counts": dict(counts),
        "composition_224": None,
        "density_per_mm2": {name: round(count / area_mm2, 2) for name, count in counts.items()},
        "tumour_burden": burden,
        "tumour_burden_reason": reason,
    }


def qc(segmentation: Segmentation) -> dict[str, Any]:
    """The technical warnings, as written."""
    report = segmentation.qc
    return {"verdict": report.verdict, "codes": list(report.codes), "measures": dict(report.measures)}


def provenance(segmentation: Segmentation, context: RequestContext) -> dict[str, Any]:
    """All that is needed to know where a result came from, and to get it again; no file name, no patient data.

    `input.mpp` and `resize_factor` are one number each: the geometric mean where x and y differ.
    """
    mpp = math.sqrt(segmentation.mpp.x * segmentation.mpp.y)
    return {
        "request_id": context.request_id,
        "created": context.created.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "service": {"version": context.service_version, "revision": context.revision},
        "model": asdict(context.model) | {"members": list(context.model.members)},
        "profile": segmentation.profile,
        "thresholds": dict(context.thresholds),
        "config_sha256": context.config_sha256(segmentation),
        "input": {
            "sha256": context.input_sha256,
            "width": segmentation.width,
            "height": segmentation.height,
            "mpp": round(mpp, 6),
            "mpp_source": segmentation.mpp.source,
        },
        "resize_factor": round(math.sqrt(segmentation.grid.size / (segmentation.width * segmentation.height)), 6),
        "runtime": asdict(context.runtime),
        "geometry": {"repaired": segmentation.repaired, "dropped": segmentation.dropped},
    }


def config_sha256(thresholds: Mapping[str, Any], profile: Profile, mpp: Mpp) -> str:
    """Hex digest of thresholds, profile, mpp, class table and post-processing version; key order does not matter."""
    config = {
        "thresholds": dict(thresholds),
        "profile": profile,
        "mpp": [mpp.x, mpp.y],
        "codes": [[c.id, c.name] for c in CLASSES],
        "postprocessing": POSTPROCESSING_VERSION,
    }
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def nucleus_ids(input_sha256: str, model_sha256: str, config_sha256: str, n: int) -> list[str]:
    """Identifiers of the nuclei 1..n in reading order: the same image, model and parameters give the same ones.

    Returns:
        n strings, each `uuid.uuid5(KARYON_NAMESPACE, "nucleus|input|model|config|i")`.
    """
    text = nucleus_id_text(input_sha256, model_sha256, config_sha256, n).tobytes().decode()
    return [text[at : at + 36] for at in range(0, len(text), 36)]


def nucleus_id_text(input_sha256: str, model_sha256: str, config_sha256: str, n: int) -> UInt8:
    """The same identifiers as (n, 36) uint8, ASCII, written as RFC 9562 (version 5) lays them out."""
    return _id_text(f"nucleus|{input_sha256}|{model_sha256}|{config_sha256}|", range(1, n + 1))


def slide_nucleus_id_text(
    input_sha256: str, model_sha256: str, config_sha256: str, at: tuple[float, float], numbers: Sequence[int]
) -> UInt8:
    """Identifiers of nuclei of a tile that lies on a slide, where equal tiles may lie at several places.

    Args:
        input_sha256: of what was analysed, as the tile is kept.
        model_sha256, config_sha256: of the slide's results.
        at: the tile's corner, x and y in pixels of the slide.
        numbers: of the nuclei inside their tile, counted from 1 in reading order.

    Returns:
        (N, 36) uint8, ASCII: `uuid.uuid5(KARYON_NAMESPACE, "nucleus|input|model|config|x,y|number")`, x and y with
        three decimals.
    """
    place = f"{at[0]:.3f},{at[1]:.3f}"
    return _id_text(f"nucleus|{input_sha256}|{model_sha256}|{config_sha256}|{place}|", numbers)


def _id_text(name: str, numbers: Sequence[int]) -> UInt8:
    n = len(numbers)
    begun = hashlib.sha1(KARYON_NAMESPACE.bytes + name.encode(), usedforsecurity=False)
    digests = b"".join([_finished(begun.copy(), i) for i in numbers])
    octets = np.frombuffer(digests, np.uint8).reshape(n, 20)[:, :16].copy()
    octets[:, 6] = octets[:, 6] & 0x0F | 0x50
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    text = np.full((n, 36), ord("-"), np.uint8)
    text[:, _HEX_AT] = _HEX_DIGITS[np.stack([octets >> 4, octets & 0x0F], axis=2).reshape(n, 32)]
    return text


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), inside 0..1.

    Args:
        successes, trials: counts, or what counts of clustered things are worth, see `app.slides.composition`.

    Raises:
        ValueError: if there are no trials.
    """
    if trials < 1:
        raise ValueError("no trials, no share")
    share, z2 = successes / trials, _Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _finished(digest: Any, index: int) -> bytes:
    digest.update(b"%d" % index)
    finished: bytes = digest.digest()
    return finished


def _tumour_burden(epithelial: int, total: int, allowed: bool) -> tuple[dict[str, float] | None, str | None]:
    if not allowed:
        return None, "the model does not tell tumour from healthy epithelium"
    if total == 0:
        return None, "no nuclei were found"
    low, high = wilson(epithelial, total)
    figures = {"value": epithelial / total, "low": low, "high": high}
    return {name: round(figure, 4) for name, figure in figures.items()}, None


def _composition_224(segmentation: Segmentation) -> dict[str, int] | None:
    if (segmentation.height, segmentation.width) != (256, 256):
        return None
    inside = np.flatnonzero(np.bincount(segmentation.instance_map[_CORE, _CORE].ravel()))
    types = segmentation.nuclei.type[inside[inside > 0] - 1]
    found = np.bincount(types, minlength=len(CLASSES) + 1)
    return {c.name: int(found[c.id]) for c in CLASSES}
