"""What lies between a decoded image and the bytes of an answer? The HTTP service and the command line share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from app import __version__
from app.api.decoding import Announced, DecodedImage, check_pixels
from app.api.probing import Size
from app.formats import geojson, hovernet, overlay, table
from app.formats.document import ModelFacts, RequestContext, Runtime
from app.nuclei import qc, tiling
from app.nuclei.artifact import Artifact, Manifest
from app.nuclei.errors import Abandoned, InferenceFailed, InvalidParameter, Refusal
from app.nuclei.segmenter import SAME_SCALE, Segmenter
from app.nuclei.separation import HERE, Separator
from app.nuclei.types import Engine, Mpp, MppSource, Profile, Segmentation

PATCHES_AT_ONCE = 16  # of 512 x 512 their maps take 168 MB
GEOJSON, SUMMARY, PNG, CSV, HOVERNET = (
    "application/geo+json",
    "application/json",
    "image/png",
    "text/csv",
    "application/vnd.hovernet+json",
)


@dataclass(frozen=True, slots=True)
class Result:
    """One analysed image, with all that an answer says about it.

    Attributes:
        segmentation: the nuclei.
        context: who asked, and what answered.
        image: that was analysed.
        manifest: of the model.
    """

    segmentation: Segmentation
    context: RequestContext
    image: DecodedImage
    manifest: Manifest

    @property
    def bucket(self) -> str:
        """Model, views and patch size: what work of the same cost has in common."""
        own, (height, width) = self.manifest, self.segmentation.grid.shape
        patch = tiling.plan(height, width, own.patch_sizes, own.margin).patch
        return f"{own.name}/{self.segmentation.profile}/{patch}"


Writer = Callable[[Result], bytes]
WRITERS: Mapping[str, Writer] = MappingProxyType(
    {  # the first is what a caller gets who does not ask
        GEOJSON: lambda r: geojson.encode(r.segmentation, r.context),
        SUMMARY: lambda r: geojson.encode_summary(r.segmentation, r.context),
        PNG: lambda r: overlay.png(r.segmentation),
        CSV: lambda r: table.encode(r.segmentation, r.context, r.image.pixels),
        HOVERNET: lambda r: hovernet.encode(r.segmentation, r.context),
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may be: pixels as sent and at the model's scale, and um per pixel."""

    max_pixels: int
    min_mpp: float
    max_mpp: float

    def mpp(self, value: float, source: MppSource) -> float:
        """A scale that is accepted.

        Raises:
            InvalidParameter: if it is outside the range, or not a number.
        """
        if not self.min_mpp <= value <= self.max_mpp:  # also NaN
            whose = "the file's own metadata say" if source == "file" else "mpp is"
            advice = "; the parameter mpp overrides them" if source == "file" else ""
            raise InvalidParameter(
                "mpp", f"{whose} {value:g} um per pixel; {self.min_mpp:g} to {self.max_mpp:g} are accepted{advice}"
            )
        return value


def scale(requested: float | Mpp | None, image: DecodedImage | Announced, limits: Limits) -> Mpp | None:
    """um per pixel of an image: the caller's word, or its slide's, else the file's; None leaves the model's own.

    Raises:
        InvalidParameter: if the one that counts is out of range.
    """
    if isinstance(requested, Mpp):
        return requested
    if requested is not None:
        value = limits.mpp(requested, "request")
        conflict = any(abs(own / value - 1) > SAME_SCALE for own in image.mpp or ())
        return Mpp(value, value, "request", conflict)
    if image.mpp is None:
        return None
    x, y = (limits.mpp(own, "file") for own in image.mpp)
    return Mpp(x, y, "file")


def check_grid(manifest: Manifest, height: int, width: int, mpp: Mpp | None, limits: Limits) -> None:
    """Refuse an image that has too many pixels at the model's scale.

    Raises:
        PayloadTooLarge: naming both figures.
    """
    if mpp is not None:
        size = Size(round(width * mpp.x / manifest.mpp), round(height * mpp.y / manifest.mpp))
        check_pixels(size, limits.max_pixels, f"brought to the model's {manifest.mpp:g} um per pixel, the image")


@dataclass(frozen=True)
class Analysis:
    """A model, ready to answer for one request.

    Attributes:
        artifact: the model.
        engine: what runs it.
        limits: what images may be.
        observe: told the seconds of each stage.
        revision: of the running code.
        separator: see `Segmenter`.
    """

    artifact: Artifact
    engine: Engine
    limits: Limits
    observe: Callable[[str, float], None]
    revision: str = "unknown"
    separator: Separator = HERE

    def run(self, image: DecodedImage, mpp: Mpp | None, profile: Profile | None, request_id: str) -> Result:
        """Find the nuclei of an image.

        Raises:
            PayloadTooLarge: if it grows beyond the limit at the model's scale.
            InferenceFailed: if model or separation fail.
        """
        height, width = image.pixels.shape[:2]
        check_grid(self.artifact.manifest, height, width, mpp, self.limits)
        try:
            segmenter = Segmenter(self.artifact, self.engine, self.observe, PATCHES_AT_ONCE, self.separator)
            segmentation = segmenter.segment(image.pixels, mpp, profile)
        except (Refusal, Abandoned):
            raise
        except Exception as error:
            raise InferenceFailed("the model failed on this image; other requests are not affected") from error
        return Result(segmentation, self.context(image.sha256, request_id), image, self.artifact.manifest)

    def context(self, input_sha256: str, request_id: str) -> RequestContext:
        """What answers say besides their nuclei, of an input with this digest."""
        manifest = self.artifact.manifest
        return RequestContext(
            request_id=request_id,
            created=datetime.now(UTC),
            service_version=__version__,
            revision=self.revision,
            input_sha256=input_sha256,
            model=ModelFacts(
                manifest.name,
                manifest.version,
                self.artifact.sha256,
                tuple(member.encoder for member in manifest.members),
                manifest.licence,
                manifest.training_data,
            ),
            thresholds={
                "postprocess": asdict(manifest.postprocess),
                "temperature": manifest.temperature,
                "qc": {**qc.DEFAULT_THRESHOLDS, **manifest.qc},
            },
            runtime=Runtime(
                *(str(getattr(self.engine, name, "unknown")) for name in ("device", "provider", "precision"))
            ),
            epithelium_is_tumour=manifest.tumour_burden_reason is None,
        )


def result_headers(result: Result) -> dict[str, str]:
    """What every form of a result carries, so that a picture or a table can be traced as well."""
    model, report = result.context.model, result.segmentation.qc
    headers = {
        "Model-Version": f"{model.name}/{model.version}@sha256:{model.sha256}",
        "Karyon-QC": report.verdict,
        "Vary": "Accept",
        "Cache-Control": "no-store",
    }
    return headers | ({"Karyon-QC-Codes": ", ".join(report.codes)} if report.codes else {})
