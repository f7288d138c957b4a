"""Small data sets in the layouts of their publishers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile
from scipy.io import savemat

from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Int32, UInt8
from training.data.sample import Sample

Region = tuple[int, int, int, int]
"""x0, y0, x1, y1 of a rectangle, the far side exclusive."""


def write_lizard(root: Path, names: list[str], size: tuple[int, int] = (90, 110)) -> Path:
    """A small data set in the publisher's layout; ids have gaps."""
    labels = root / "Lizard_Labels" / "Labels"
    labels.mkdir(parents=True)
    (root / "Lizard_Images").mkdir()
    rows = ["Filename,Source,Split"]
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        image = rng.integers(150, 255, (*size, 3), np.uint8)
        instances = np.zeros(size, np.int32)
        for index, (row, col) in enumerate([(10, 12), (40, 60), (70, 90)]):
            instances[row : row + 12, col : col + 9] = 5 + 3 * index
        image[instances > 0] //= 3
        cv2.imwrite(str(root / "Lizard_Images" / f"{name}.png"), image)
        content = {"inst_map": instances, "id": np.array([[5], [8], [11]]), "class": np.array([[2], [6], [1]])}
        savemat(labels / f"{name}.mat", content)
        rows.append(f"{name},slide{number // 2}-lv1-0-0-100-100,1")
    (root / "Lizard_Labels" / "info.csv").write_text("\n".join(rows) + "\n")
    return root


def corner_patches(sample: Sample) -> list[Sample]:
    """The four 256x256 corners of a sample, as the challenge would name them."""
    height, width = sample.instance_map.shape
    places = [(top, left) for top in (0, height - 256) for left in (0, width - 256)]
    return [
        Sample(
            f"{sample.name}-{number:04d}",
            sample.collection,
            sample.name,
            sample.image[top : top + 256, left : left + 256],
            sample.instance_map[top : top + 256, left : left + 256],
            sample.types,
            0.5,
        )
        for number, (top, left) in enumerate(places)
    ]


def write_conic(root: Path, patches: Sequence[Sample]) -> Path:
    """Patches as CoNIC has them: ids 1..N in each, counts of what reaches into the central 224x224."""
    root.mkdir(parents=True, exist_ok=True)
    dense = [np.unique(p.instance_map, return_inverse=True)[1].reshape(256, 256) for p in patches]
    labels = np.stack([np.stack([ids, p.type_map], axis=-1) for ids, p in zip(dense, patches, strict=True)])
    np.save(root / "images.npy", np.stack([p.image for p in patches]))
    np.save(root / "labels.npy", labels.astype(np.uint16))
    (root / "patch_info.csv").write_text("patch_info\n" + "".join(f"{p.name}\n" for p in patches))
    rows = [",".join(NAMES)]
    for patch in patches:
        inner = [int(patch.types[i]) for i in np.unique(patch.instance_map[16:240, 16:240]) if i]
        rows.append(",".join(str(inner.count(kind)) for kind in range(1, 7)))
    (root / "counts.csv").write_text("\n".join(rows) + "\n")
    return root


def pannuke_patch(seed: int) -> tuple[UInt8, UInt8]:
    """Image and mask: id 1 in the first channel twice as wide as ids 1 and 2 in the fifth, the rest empty."""
    image = np.random.default_rng(seed).integers(150, 255, (256, 256, 3), np.uint8)
    mask = np.zeros((256, 256, 6), np.uint8)
    mask[10:20, 10:30, 0] = 1
    mask[40:50, 60:70, 4] = 1
    mask[80:90, 60:70, 4] = 2
    mask[..., 5] = ~mask[..., :5].any(axis=-1)
    return image, mask


def write_pannuke(root: Path, folders: Sequence[str] = ("Fold 1", "Fold 2", "Fold 3"), count: int = 1) -> Path:
    """Folds as their archives unpack, numbers as float64; a folder of "" lays a fold into the root itself."""
    for number, folder in enumerate(folders, start=1):
        pictures, masks = (root / folder / part / f"fold{number}" for part in ("images", "masks"))
        pictures.mkdir(parents=True)
        masks.mkdir(parents=True)
        patches = [pannuke_patch(10 * number + i) for i in range(count)]
        np.save(pictures / "images.npy", np.stack([image for image, _ in patches]).astype(np.float64))
        np.save(pictures / "types.npy", np.array(["Breast", "Bile-duct"] * count)[:count])
        np.save(masks / "masks.npy", np.stack([mask for _, mask in patches]).astype(np.float64))
    return root


def aperio(annotations: dict[str, Sequence[Region]], mpp: str = "0.25") -> str:
    """An annotation file: rectangles by the name of their class."""
    blocks = []
    for name, regions in annotations.items():
        drawn = "".join(
            f'<Region Id="{number}"><Vertices>'
            + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ((a, b), (c, b), (c, d), (a, d)))
            + "</Vertices></Region>"
            for number, (a, b, c, d) in enumerate(regions, start=1)
        )
        attributes = f'<Attributes><Attribute Name="{name}" Id="0" Value=""/></Attributes>'
        blocks.append(f'<Annotation Id="1" Name="">{attributes}<Regions>{drawn}</Regions></Annotation>')
    return f'<Annotations MicronsPerPixel="{mpp}">{"".join(blocks)}</Annotations>'


PATIENT = "TCGA-5P-A9K0-01Z-00-DX1"
CELLS: dict[str, Sequence[Region]] = {
    "Epithelial": [(10, 20, 30, 40), (50, 20, 70, 44)],
    "Lymphocyte": [(5, 60, 15, 70)],
    "Neutrophil": [],
    "Macrophage": [(60, 50, 95, 78)],
}


def write_monusac(
    root: Path, stems: Sequence[str] = (f"{PATIENT}/{PATIENT}_1",), size: tuple[int, int] = (80, 100)
) -> Path:
    """TIFF images with annotations, at FOLDER/NAME without suffix."""
    for number, stem in enumerate(stems):
        path = root / f"{stem}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(150, 255, (*size, 3), np.uint8)
        tifffile.imwrite(path, image, photometric="rgb")
        path.with_suffix(".xml").write_text(aperio(CELLS))
    return root


def rectangle(shape: tuple[int, int], region: Region) -> Int32:
    """(H, W) int32, 1 inside."""
    drawn = np.zeros(shape, np.int32)
    drawn[region[1] : region[3], region[0] : region[2]] = 1
    return drawn
