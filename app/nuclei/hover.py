"""Which pixels belong to which nucleus?

Separation of HoVer maps into instances after PAPER.md 5: where the offsets jump, nuclei touch; markers lie where they
do not; the mask is flooded from the markers. An `OperatingPoint` holds every constant. `PAPER` gives the nuclei of
the method's authors; `NATIVE` works at the network's own resolution with fixed scales, so that a result does not
depend on how a slide was cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from app.nuclei.errors import ArtifactInvalid
from app.nuclei.flood import flood
from app.nuclei.instances import describe, tidy
from app.nuclei.jit import HAVE_NUMBA, fit_for_kernel
from app.nuclei.landscape import survey
from app.nuclei.markers import clean
from app.nuclei.runs import Found
from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Float32, Int32

Shape = Literal["ellipse", "cross", "rect"]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The constants of separation; a model's manifest carries its own under `postprocess`.

    Lengths and areas are pixels of the grid that is flooded: the maps' own times `enlarge`.

    Attributes:
        enlarge: 1, or 2 to separate on bilinearly doubled maps and take every second pixel back.
        nucleus_threshold: probability from which a pixel is nucleus.
        sobel_taps: length of the Sobel kernel, odd, 3..31.
        marker_threshold: a marker's pixels have no edge at or above this, 0..1.
        opening_shape, opening_size: structuring element that opens the markers; size odd.
        smallest_marker: markers of fewer pixels are dropped.
        smallest_object: blobs of the mask of fewer pixels are dropped.
        energy_bits: levels of the flood, 8 or 16.
        hv_scale: None stretches Sobel responses from their minimum..maximum over the image to 0..1; (low, high) does so
            from fixed ones, in change of offset per pixel, low < 0 < high.

    Raises:
        ArtifactInvalid: if a constant is out of range.
    """

    enlarge: int
    nucleus_threshold: float
    sobel_taps: int
    marker_threshold: float
    opening_shape: Shape
    opening_size: int
    smallest_marker: int
    smallest_object: int
    energy_bits: int
    hv_scale: tuple[float, float] | None

    def __post_init__(self) -> None:
        checks = {
            "enlarge": self.enlarge in (1, 2),
            "nucleus_threshold": 0 < self.nucleus_threshold < 1,
            "sobel_taps": self.sobel_taps % 2 == 1 and 3 <= self.sobel_taps <= 31,
            "marker_threshold": 0 < self.marker_threshold <= 1,
            "opening_shape": self.opening_shape in get_args(Shape),
            "opening_size": self.opening_size % 2 == 1 and 1 <= self.opening_size <= 31,
            "smallest_marker": self.smallest_marker >= 1,
            "smallest_object": self.smallest_object >= 1,
            "energy_bits": self.energy_bits in (8, 16),
            "hv_scale": self.hv_scale is None or self.hv_scale[0] < 0 < self.hv_scale[1],
        }
        if wrong := [name for name, holds in checks.items() if not holds]:
            raise ArtifactInvalid(f"postprocess: out of range: {', '.join(wrong)}")

    def to_dict(self) -> dict[str, object]:
        """Plain values for a manifest."""
        scale = None if self.hv_scale is None else list(self.hv_scale)
        return {**dataclasses.asdict(self), "hv_scale": scale}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> OperatingPoint:
        """The point that `to_dict` wrote.

        Raises:
            ArtifactInvalid: on an unknown or missing key, a value of another type, or one out of range.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(values):
            raise ArtifactInvalid(
                f"postprocess: unknown {sorted(set(values) - names)}, missing {sorted(names - set(values))}"
            )
        return cls(**{name: _typed(name, values[name]) for name in names})


PAPER = OperatingPoint(
    enlarge=2,
    nucleus_threshold=0.5,
    sobel_taps=21,
    marker_threshold=0.4,
    opening_shape="ellipse",
    opening_size=5,
    smallest_marker=10,
    smallest_object=10,
    energy_bits=16,
    hv_scale=None,
)
NATIVE = OperatingPoint(
    enlarge=1,
    nucleus_threshold=0.5,
    sobel_taps=7,
    marker_threshold=0.4,
    opening_shape="cross",
    opening_size=3,
    smallest_marker=5,
    smallest_object=3,
    energy_bits=8,
    hv_scale=(-0.5, 0.3),
)


def separate(np_prob: npt.NDArray[np.floating], hv: npt.NDArray[np.floating], point: OperatingPoint) -> Int32:
    """Instances of one image.

    Args:
        np_prob: (H, W) float16 or float32, probability of nucleus, 0..1, any memory layout.
        hv: (H, W, 2) float16 or float32, about -1..1 and more; `[..., 0]` grows to the right, `[..., 1]` downward.
        point: the constants.

    Returns:
        (H, W) int32: 0 background, 1..N in reading order of each nucleus' first pixel, every number present. A blob
        without a marker is background; constant `hv` gives no nuclei. An instance may have holes or, after enlarging,
        parts: `instances.tidy` mends both.

    Raises:
        ValueError: if the maps differ in size.
    """
    return separated(np_prob, hv, point)[0]


def separated(
    np_prob: npt.NDArray[np.floating], hv: npt.NDArray[np.floating], point: OperatingPoint
) -> tuple[Int32, Found | None]:
    """As `separate`, with the map's runs, which `instances.tidied` need not look for then."""
    if np_prob.ndim != 2 or hv.shape != (*np_prob.shape, 2):
        raise ValueError(f"maps of different size: np, hv are {np_prob.shape} and {hv.shape}")
    if not np_prob.size:
        return np.zeros(np_prob.shape, np.int32), None
    return _separated(fit_for_kernel(np_prob, np.float32), fit_for_kernel(hv, np.float32), point)


def warm_up() -> None:
    """Compile or load every kernel of separation and description, so that the first real call is as fast as the next.

    Takes a fraction of a second with kernels kept on disk, some ten seconds if they have to be compiled.
    """
    # Touching blobs, a hole and a part to cut off: every kernel has something to do.
    rows, cols = np.mgrid[:48, :64].astype(np.float32)
    np_prob = ((np.hypot(rows - 20, cols - 18) < 12) | (np.hypot(rows - 26, cols - 40) < 14)).astype(np.float32)
    hv = np.stack([np.where(cols < 28, cols - 18, cols - 40), rows - 22], axis=2) / 14
    type_prob = np.full((48, 64, 1 + len(CLASSES)), 1 / (1 + len(CLASSES)), np.float32)
    for point in (PAPER, NATIVE):
        labels = separate(np_prob, hv, point)
        labels[20, 10], labels[2, 2] = 0, 1
        describe(tidy(labels)[0], type_prob)


def _separated(
    np_prob: Float32, hv: Float32, point: OperatingPoint, compiled: bool = HAVE_NUMBA
) -> tuple[Int32, Found | None]:
    terrain = survey(
        np_prob,
        hv,
        enlarge=point.enlarge,
        sobel_taps=point.sobel_taps,
        nucleus_threshold=point.nucleus_threshold,
        marker_threshold=point.marker_threshold,
        energy_bits=point.energy_bits,
        hv_scale=point.hv_scale,
        compiled=compiled,
    )
    return flood(
        terrain.mask,
        clean(terrain.inner, point.opening_shape, point.opening_size, compiled),
        terrain.energy,
        step=point.enlarge,
        smallest_marker=point.smallest_marker,
        smallest_object=point.smallest_object,
        compiled=compiled,
    )


def _typed(name: str, value: object) -> Any:
    """A manifest's value as the type of the field; JSON has lists for tuples and may write 1.0 as 1."""
    if name == "hv_scale" and isinstance(value, list | tuple):
        if len(value) == 2 and all(isinstance(v, int | float) for v in value):
            return float(value[0]), float(value[1])
    elif name == "hv_scale" and value is None:
        return None
    elif name == "opening_shape" and isinstance(value, str):
        return value
    elif name in ("nucleus_threshold", "marker_threshold") and isinstance(value, int | float):
        return float(value)
    elif type(value) is int and name not in ("hv_scale", "opening_shape"):
        return value
    raise ArtifactInvalid(f"postprocess: {name} cannot be {value!r}")
