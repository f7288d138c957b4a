"""How is MoNuSAC read? Images beside Aperio XML, a folder per patient; every region of the XML is one nucleus.

`PATIENT/NAME.svs` or `.tif` (the slide is taken where both are there) and `PATIENT/NAME.xml`, in which an Annotation
per class, named by its Attribute, holds Regions of Vertices in pixels of that image. The publisher's two archives may
lie side by side: what is in a folder with "Testing" in its name is the fold "test", all else "train".

The test images also have regions named "Ambiguous": faint nuclei, or kinds outside the four classes. The challenge did
not score them; here they are no truth, so a model that finds a nucleus there is told that it is wrong.
Macrophages are outlined as whole cells, ten times the area of a nucleus.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import openslide
import tifffile
from skimage.draw import polygon

from app.nuclei.types import Float64, Int32, UInt8
from training.data import layout
from training.data.layout import WrongLayout
from training.data.sample import Sample
from training.data.taxonomies import MONUSAC

NOMINAL_MPP = 0.25
"""Where neither the image nor the XML says."""
LICENCE = "CC BY-NC-SA 4.0"
COLLECTION = "monusac"
FOLDS = ("train", "test")
IMAGES = (".svs", ".tif", ".tiff")


class Region(NamedTuple):
    """One outlined nucleus: its class id, and (V, 2) corners (x, y), the first pixel covering 0..1."""

    kind: int
    points: Float64


class Annotation(NamedTuple):
    """Content of one XML file."""

    regions: list[Region]
    mpp: float | None


def detect(root: Path) -> bool:
    """Whether an XML file has an image beside it: here, in a patient's folder, or one folder further down."""
    if root.is_file():
        return root.suffix.lower() in (*IMAGES, ".xml")
    found = (p for depth in ("*.xml", "*/*.xml", "*/*/*.xml") for p in root.glob(depth))
    return any(_image(p.with_suffix("")) for p in found)


def iterate(root: Path, sources: Collection[str] | None = None) -> Iterator[Sample]:
    """The images one by one.

    Args:
        root: folder of patients, folder of both archives, one patient, or one image or XML file.
        sources: of "train", "test"; None for both.

    Raises:
        WrongLayout: an image is without XML or the other way round, or the XML does not fit; the message names it.
    """
    wanted = layout.known(sources, FOLDS, "MoNuSAC")
    base = root.parent if root.is_file() else root
    for stem in _stems(root):
        parts = (base.name, *stem.relative_to(base).parts)
        fold = FOLDS[any("testing" in part.lower() for part in parts)]
        if fold in wanted:
            yield _sample(stem, base, fold)


def read(root: Path, sources: Collection[str] | None = None) -> list[Sample]:
    """All that `iterate` gives."""
    return list(iterate(root, sources))


def annotation(path: Path) -> Annotation:
    """The nuclei that an XML file outlines, in its order, without the ambiguous ones.

    Raises:
        WrongLayout: no XML, no Annotation, a class of no known name, or a region of fewer than three corners.
    """
    try:
        root = ElementTree.parse(layout.present(path)).getroot()
    except ElementTree.ParseError as error:
        raise WrongLayout(f"{path} is no XML: {error}") from error
    blocks = root.findall("Annotation")
    if not blocks:
        raise WrongLayout(f"{path} has no Annotation")
    regions = [region for block in blocks for region in _regions(block, path)]
    return Annotation(regions, _positive(root.get("MicronsPerPixel")))


def rasterise(regions: Sequence[Region], shape: tuple[int, int], where: object) -> Int32:
    """(H, W) int32, id n + 1 where the centre of a pixel is inside region n; smaller regions lie on larger ones.

    Raises:
        WrongLayout: a region has no pixel in the image; `where` opens the message.
    """
    instance_map = np.zeros(shape, np.int32)
    for number in sorted(range(len(regions)), key=lambda n: -_area(regions[n].points)):
        # skimage counts pixels by their centres, the XML by their corners
        x, y = regions[number].points.T - 0.5
        rows, cols = polygon(y, x, shape)  # type: ignore[no-untyped-call]
        if not len(rows):
            raise WrongLayout(
                f"{where}: region {number + 1} (x {x.min():.0f} to {x.max():.0f}, y {y.min():.0f} to {y.max():.0f}) "
                f"has no pixel in the image of {shape[1]} x {shape[0]}"
            )
        instance_map[rows, cols] = number + 1
    return instance_map


def _stems(root: Path) -> list[Path]:
    files = [root] if root.is_file() else sorted(root.rglob("*"))
    stems = sorted({p.with_suffix("") for p in files if p.suffix.lower() in (*IMAGES, ".xml")})
    if not stems:
        raise WrongLayout(f"{root} holds no .xml beside an image (.svs or .tif)")
    for stem in stems:
        if not _image(stem):
            raise WrongLayout(f"{stem}.xml has no image: {stem.name}.svs or .tif is missing")
        layout.present(stem.with_name(f"{stem.name}.xml"))
    return stems


def _image(stem: Path) -> Path | None:
    return next((p for suffix in IMAGES if (p := stem.with_name(stem.name + suffix)).is_file()), None)


def _sample(stem: Path, base: Path, fold: str) -> Sample:
    path, xml = _image(stem), stem.with_name(f"{stem.name}.xml")
    assert path is not None
    image, own_mpp = _pixels(path)
    content = annotation(xml)
    instance_map = rasterise(content.regions, (image.shape[0], image.shape[1]), xml)
    types = np.array([0, *(region.kind for region in content.regions)], np.uint8)
    folder = stem.parent.name if stem.parent != base else re.sub(r"[_-]\d+$", "", stem.name)
    # several slides may come from one patient: the first three fields of a TCGA barcode name him
    patient = "-".join(folder.split("-")[:3]) if folder.startswith("TCGA-") else folder
    mpp = own_mpp or content.mpp or NOMINAL_MPP
    return Sample(stem.name, COLLECTION, patient, image, instance_map, types, mpp, MONUSAC, fold)


def _pixels(path: Path) -> tuple[UInt8, float | None]:
    try:
        image, mpp = _slide(path) if path.suffix.lower() == ".svs" else (tifffile.imread(path), None)
    except (openslide.OpenSlideError, tifffile.TiffFileError, OSError) as error:
        raise WrongLayout(f"{path} cannot be read as an image: {error}") from error
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype != np.uint8:
        raise WrongLayout(f"{path} is {image.dtype} of shape {image.shape}, expected uint8 (H, W, 3)")
    return np.ascontiguousarray(image[..., :3]), mpp


def _slide(path: Path) -> tuple[UInt8, float | None]:
    with openslide.OpenSlide(path) as slide:
        across = _positive(slide.properties.get(openslide.PROPERTY_NAME_MPP_X))
        down = _positive(slide.properties.get(openslide.PROPERTY_NAME_MPP_Y))
        if across and down and abs(across / down - 1) > 0.01:
            raise WrongLayout(f"{path} has no square pixels: {across} x {down} um")
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")), across


def _regions(block: ElementTree.Element, path: Path) -> Iterator[Region]:
    found = block.findall("Regions/Region")
    named = block.find("Attributes/Attribute")
    name = "" if named is None else named.get("Name", "")
    kind = MONUSAC.id_of(name)
    if not found or name.strip().lower() == "ambiguous":
        return
    if kind is None:
        raise WrongLayout(f"{path} has regions of class {name!r}; expected one of {', '.join(MONUSAC.classes)}")
    for region in found:
        corners = [(_number(v.get("X")), _number(v.get("Y"))) for v in region.findall("Vertices/Vertex")]
        points = np.array(corners, np.float64)
        if len(points) < 3 or not np.isfinite(points).all():
            raise WrongLayout(
                f"{path}: {name} region {region.get('Id')} has {len(points)} vertices or one without X, Y"
            )
        yield Region(kind, points)


def _area(points: Float64) -> float:
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _positive(text: str | None) -> float | None:
    value = _number(text)
    return value if np.isfinite(value) and value > 0 else None
