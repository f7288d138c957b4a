"""How is Lizard read? In its publisher's layout, every instance through its `id` (Graham et al., 2021)."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.io import loadmat

from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import Int32, UInt8
from training.data import layout
from training.data.layout import WrongLayout
from training.data.sample import Sample

__all__ = ["ABOUT", "LICENCE", "MPP", "SOURCES", "WrongLayout", "default_root", "detect", "iterate", "read"]

MPP = 0.5
LICENCE = "CC BY-NC-SA 4.0"
SOURCES = ("glas", "dpath", "pannuke", "consep", "crag")
ABOUT = {
    "consep": """The images are CoNSeP's: colorectal adenocarcinoma from University Hospitals Coventry and
Warwickshire, scanned at 0.275 um per pixel by an Omnyx VL120. Half of what was learnt from, GlaS, is of that hospital
too, from another scanner: this is another collection, not another hospital. Patients are not named in Lizard; that some
are in both cannot be excluded, and several images may be of one patient, so that intervals, which take images as
independent, may be too narrow. The truth is Lizard's: outlines and classes of networks, refined by pathologists; how
far two readers agree is not known.

Nothing was fitted to these images, but they were looked at for most candidates of the project. Several were not shipped
because of what they showed, and crops came to be varied in JPEG quality because of what it cost here. Scores of what is
shipped are to that extent chosen, and rather too high.""",
}
"""What a reader of scores should know of a source: who and what is in it, and what it was used for."""


def default_root() -> Path:
    """`KARYON_DATA`/lizard, by default beside the project."""
    return Path(os.environ.get("KARYON_DATA", "../shared/data")) / "lizard"


def detect(root: Path) -> bool:
    """Whether this could be Lizard; a file may still be missing."""
    return (root / "Lizard_Labels").is_dir() or any(root.glob("Lizard_Images*"))


def iterate(root: Path, sources: Collection[str] | None = None) -> Iterator[Sample]:
    """The images of some sources one by one, by name.

    Args:
        root: holds `Lizard_Images/` and `Lizard_Labels/{Labels/,info.csv}`; the publisher's two image folders
            (`Lizard_Images1`, `Lizard_Images2`) are taken too.
        sources: of "glas", "dpath", "pannuke", "consep", "crag"; None for all.

    Raises:
        WrongLayout: a file is missing, unreadable, or does not fit another; the message names it.
    """
    wanted = layout.known(sources, SOURCES, "Lizard")
    info = root / "Lizard_Labels" / "info.csv"
    if not info.is_file():
        raise WrongLayout(f"{info} is missing: is {root} the folder that holds Lizard_Images and Lizard_Labels?")
    rows = {row["Filename"]: row for row in layout.table(info, ("Filename", "Source", "Split"))}
    images = sorted(p for folder in root.glob("Lizard_Images*") for p in folder.glob("*.png"))
    chosen = [p for p in images if p.stem.split("_")[0] in wanted]
    if not chosen:
        raise WrongLayout(f"{root} holds no image of {', '.join(sorted(wanted))}")
    for path in chosen:
        yield _sample(path, root / "Lizard_Labels" / "Labels", rows)


def read(root: Path, sources: Collection[str] | None = None) -> list[Sample]:
    """All that `iterate` gives."""
    return list(iterate(root, sources))


def _sample(path: Path, labels: Path, rows: dict[str, dict[str, str]]) -> Sample:
    name = path.stem
    if name not in rows:
        raise WrongLayout(f"info.csv has no row for {path.name}")
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise WrongLayout(f"{path} cannot be read as an image")
    image: UInt8 = np.ascontiguousarray(bgr[..., ::-1], np.uint8)
    instance_map, types = _labels(labels / f"{name}.mat")
    if instance_map.shape != image.shape[:2]:
        raise WrongLayout(f"{name}: image is {image.shape[:2]}, its inst_map {instance_map.shape}")
    # Several images come from one slide: its name is what precedes the level and position.
    slide = rows[name]["Source"].split("-lv")[0]
    group = name if slide in ("", "None") else slide
    return Sample(name, name.split("_")[0], group, image, instance_map, types, MPP, fold=rows[name]["Split"])


def _labels(path: Path) -> tuple[Int32, UInt8]:
    content = loadmat(layout.present(path))
    absent = {"inst_map", "id", "class"} - set(content)
    if absent:
        raise WrongLayout(f"{path} has no {', '.join(sorted(absent))}")
    instance_map = content["inst_map"].astype(np.int32)
    ids, classes = content["id"].ravel(), content["class"].ravel()
    if len(ids) != len(classes) or not np.isin(classes, [c.id for c in CLASSES]).all():
        raise WrongLayout(f"{path}: id and class do not fit, or a class is not in 1..{len(CLASSES)}")
    types = np.zeros(max(int(instance_map.max(initial=0)), int(ids.max(initial=0))) + 1, np.uint8)
    types[ids] = classes
    if not types[np.unique(instance_map[instance_map > 0])].all():
        raise WrongLayout(f"{path}: an instance of inst_map has no class")
    return instance_map, types
