"""CoNIC, PanNuke and MoNuSAC in their publishers' layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from app.nuclei.metrics import counts_224
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Int32
from tests.training.layouts import (
    CELLS,
    PATIENT,
    Region,
    aperio,
    corner_patches,
    pannuke_patch,
    rectangle,
    write_conic,
    write_lizard,
    write_monusac,
    write_pannuke,
)
from training.data import conic, lizard, monusac, pannuke
from training.data.layout import WrongLayout
from training.data.sample import Leak, Sample, split_by_collection
from training.data.taxonomies import KARYON, MONUSAC, PANNUKE

Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    root = write_lizard(tmp_path_factory.mktemp("lizard"), ["glas_1", "consep_2"], (300, 310))
    return [patch for sample in lizard.read(root) for patch in corner_patches(sample)]


@pytest.fixture
def challenge(tmp_path: Path, patches: list[Sample]) -> Path:
    return write_conic(tmp_path / "conic", patches)


def same_instances(one: Int32, other: Int32) -> bool:
    """Whether two maps tell the same nuclei apart, numbers aside."""
    dense = [np.unique(m, return_inverse=True)[1] for m in (one, other)]
    return np.array_equal(*dense)


def test_conic_cut_from_lizard_has_its_instances_and_classes(challenge: Path, patches: list[Sample]) -> None:
    read = {s.name: s for s in conic.read(challenge)}
    assert len(read) == len(patches)
    for cut in patches:
        got = read[cut.name]
        np.testing.assert_array_equal(got.image, cut.image)
        np.testing.assert_array_equal(got.type_map, cut.type_map)
        assert same_instances(got.instance_map, cut.instance_map)


def test_counts_of_conic_agree_with_its_instances(challenge: Path) -> None:
    table = np.loadtxt(challenge / "counts.csv", delimiter=",", skiprows=1, dtype=int)
    counted = [counts_224(s.instance_map, s.type_map) for s in conic.read(challenge)]
    np.testing.assert_array_equal(counted, table)
    assert table.sum() < sum(len(s.centres) for s in conic.read(challenge))


def test_patches_of_one_lizard_image_are_one_group(challenge: Path) -> None:
    samples = conic.read(challenge, ["glas"])
    assert {(s.collection, s.group, s.mpp, s.taxonomy) for s in samples} == {("glas", "glas_1", 0.5, KARYON)}
    assert len(samples) == 4


def test_an_image_of_conic_stays_on_disk(challenge: Path) -> None:
    assert isinstance(next(conic.iterate(challenge)).image, np.memmap)


def _relabel(path: Path, place: tuple[int | slice, ...], value: int) -> None:
    labels = np.load(path)
    labels[place] = value
    np.save(path, labels)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda r: (r / "labels.npy").unlink(), r"labels\.npy is missing"),
        (lambda r: (r / "counts.csv").unlink(), r"counts\.csv is missing"),
        (lambda r: (r / "patch_info.csv").unlink(), r"patch_info\.csv is missing"),
        (lambda r: np.save(r / "images.npy", np.zeros((8, 250, 256, 3), np.uint8)), r"images\.npy has shape \(8, 250"),
        (lambda r: np.save(r / "images.npy", np.zeros((7, 256, 256, 3), np.uint8)), r"labels\.npy .*expected \(7,"),
        (lambda r: np.save(r / "images.npy", np.zeros((8, 256, 256, 3))), r"images\.npy holds float64"),
        (lambda r: (r / "images.npy").write_bytes(b"no array"), r"images\.npy cannot be read"),
        (lambda r: (r / "counts.csv").write_text("plasma\n1\n"), r"counts\.csv has no column neutrophil, epithelial"),
        (lambda r: (r / "counts.csv").write_text(",".join(NAMES) + "\n"), r"counts\.csv has 0 rows, expected 8"),
        (lambda r: (r / "patch_info.csv").write_text("patch_info\n" + "glas\n" * 8), r"patch_info\.csv, row 1: 'glas'"),
        (lambda r: (r / "patch_info.csv").write_text("patch_info\n" + "glas_1-1\n" * 8), r"patch_info\.csv .* twice"),
        (lambda r: _relabel(r / "labels.npy", (0, 12, 14, 1), 7), r"labels\.npy, patch 0 \(consep_2-0000\).* 0\.\.6"),
        (lambda r: _relabel(r / "labels.npy", (0, ..., 1), 0), r"labels\.npy, patch 0 .*has no class"),
    ],
)
def test_conic_in_a_wrong_layout_is_named_with_its_file(challenge: Path, spoil: Spoil, complaint: str) -> None:
    spoil(challenge)
    with pytest.raises(WrongLayout, match=complaint):
        conic.read(challenge)


@pytest.mark.parametrize("folders", [("Fold 1", "Fold 2", "Fold 3"), ("fold1", "fold_2", "Fold3"), ("", "", "")])
def test_pannuke_is_read_however_its_archives_were_unpacked(tmp_path: Path, folders: tuple[str, ...]) -> None:
    samples = pannuke.read(write_pannuke(tmp_path, folders))
    assert [(s.name, s.collection, s.fold) for s in samples] == [
        (f"fold{k}-0000-Breast", f"fold{k}", f"fold{k}") for k in (1, 2, 3)
    ]


def test_ids_that_two_channels_of_pannuke_share_become_two_nuclei(tmp_path: Path) -> None:
    sample = pannuke.read(write_pannuke(tmp_path), ["fold2"])[0]
    image, mask = pannuke_patch(20)
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.instance_map, mask[..., 0] + np.where(mask[..., 4], mask[..., 4] + 1, 0))
    np.testing.assert_array_equal(sample.types, [0, 1, 5, 5])
    assert (sample.taxonomy, sample.mpp, sample.counts["epithelial"]) == (PANNUKE, 0.25, 2)


def test_a_pixel_that_two_channels_claim_stays_with_the_first() -> None:
    mask = np.zeros((4, 4, 6))
    mask[:3, :3, 1], mask[2:, 2:, 3] = 7, 7
    instance_map, types = pannuke.instances_of(mask)
    assert (instance_map[2, 2], instance_map[3, 3], types.tolist()) == (1, 2, [0, 2, 4])


def _fold1(root: Path, part: str, file: str) -> Path:
    return root / "Fold 1" / part / "fold1" / file


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda r: (r / "Fold 3").rename(r / "third"), r"fold3 is missing: no images/fold3/images\.npy"),
        (lambda r: _fold1(r, "masks", "masks.npy").unlink(), r"masks\.npy is missing"),
        (lambda r: _fold1(r, "images", "types.npy").unlink(), r"types\.npy is missing"),
        (lambda r: np.save(_fold1(r, "masks", "masks.npy"), np.zeros((1, 256, 256, 5))), r"masks\.npy has shape"),
        (lambda r: np.save(_fold1(r, "images", "types.npy"), np.array(["a", "b"])), r"types\.npy has shape \(2,\)"),
        (lambda r: np.save(_fold1(r, "images", "types.npy"), np.array([3])), r"types\.npy holds int64"),
        (
            lambda r: np.save(_fold1(r, "images", "images.npy"), np.full((1, 256, 256, 3), 256.0)),
            r"images\.npy, patch 0",
        ),
        (lambda r: np.save(_fold1(r, "masks", "masks.npy"), np.full((1, 256, 256, 6), -1.0)), r"masks\.npy, patch 0"),
    ],
)
def test_pannuke_in_a_wrong_layout_is_named_with_its_file(tmp_path: Path, spoil: Spoil, complaint: str) -> None:
    spoil(write_pannuke(tmp_path))
    with pytest.raises(WrongLayout, match=complaint):
        pannuke.read(tmp_path)


def test_the_folds_of_pannuke_share_no_patch(tmp_path: Path) -> None:
    samples = pannuke.read(write_pannuke(tmp_path, count=2))
    training, held = split_by_collection(samples, ["fold3"])
    assert ({s.fold for s in training}, [s.name for s in held]) == (
        {"fold1", "fold2"},
        ["fold3-0000-Breast", "fold3-0001-Bile-duct"],
    )


def test_every_region_of_monusac_becomes_the_pixels_it_encloses(tmp_path: Path) -> None:
    sample = monusac.read(write_monusac(tmp_path))[0]
    drawn = [region for regions in CELLS.values() for region in regions]
    wanted = sum(number * rectangle((80, 100), region) for number, region in enumerate(drawn, start=1))
    np.testing.assert_array_equal(sample.instance_map, wanted)
    assert sample.counts == {"epithelial": 2, "lymphocyte": 1, "macrophage": 1, "neutrophil": 0}
    assert (sample.name, sample.group, sample.taxonomy) == (f"{PATIENT}_1", "TCGA-5P-A9K0", MONUSAC)


def test_ambiguous_regions_are_no_truth(tmp_path: Path) -> None:
    path = next(write_monusac(tmp_path).rglob("*.xml"))
    path.write_text(aperio({"Ambiguous": [(0, 0, 50, 50)], "lymphocyte": [(60, 60, 70, 70)]}))
    np.testing.assert_array_equal(monusac.read(tmp_path)[0].instance_map, rectangle((80, 100), (60, 60, 70, 70)))


@pytest.mark.parametrize("order", [1, -1])
def test_a_small_nucleus_lies_on_a_large_one(order: int) -> None:
    large, small = (0, 0, 9, 9), (3, 3, 5, 5)
    regions = [monusac.Region(1, _corners(r)) for r in (large, small)[::order]]
    instance_map = monusac.rasterise(regions, (10, 10), "drawn")
    assert np.bincount(instance_map.ravel())[1:].tolist() == [81 - 4, 4][::order]


def _corners(region: Region) -> np.ndarray:
    x0, y0, x1, y1 = region
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def test_a_region_that_leaves_the_image_is_cut_at_its_edge() -> None:
    instance_map = monusac.rasterise([monusac.Region(1, _corners((-5, 2, 4, 99)))], (10, 12), "drawn")
    np.testing.assert_array_equal(instance_map, rectangle((10, 12), (0, 2, 4, 10)))


@pytest.mark.parametrize(("written", "mpp"), [("0.2277", 0.2277), ("", 0.25), ("0", 0.25), ("none", 0.25)])
def test_resolution_comes_from_the_annotation_where_the_image_has_none(
    tmp_path: Path, written: str, mpp: float
) -> None:
    next(write_monusac(tmp_path).rglob("*.xml")).write_text(aperio(CELLS, written))
    assert monusac.read(tmp_path)[0].mpp == mpp


ARCHIVES = (
    "MoNuSAC_images_and_annotations/TCGA-55-1594-01Z-00-DX1/TCGA-55-1594-01Z-00-DX1_001",
    "MoNuSAC_images_and_annotations/TCGA-55-1594-01A-01-TS1/TCGA-55-1594-01A-01-TS1_001",
    "MoNuSAC Testing Data and Annotations/TCGA-2Z-A9JG-01Z-00-DX1/TCGA-2Z-A9JG-01Z-00-DX1_1",
)


def test_the_archives_of_monusac_are_its_folds_and_patients_its_groups(tmp_path: Path) -> None:
    write_monusac(tmp_path, ARCHIVES)
    found = [(s.fold, s.group) for s in monusac.iterate(tmp_path)]
    assert found == [("test", "TCGA-2Z-A9JG"), ("train", "TCGA-55-1594"), ("train", "TCGA-55-1594")]
    assert [s.fold for s in monusac.iterate(tmp_path / "MoNuSAC Testing Data and Annotations")] == ["test"]
    assert len(monusac.read(tmp_path, ["test"])) == 1


def test_a_patient_in_both_archives_is_a_leak(tmp_path: Path) -> None:
    write_monusac(tmp_path, [*ARCHIVES, ARCHIVES[2].replace("2Z-A9JG", "55-1594")])
    with pytest.raises(Leak, match="TCGA-55-1594 of monusac"):
        split_by_collection(monusac.read(tmp_path), ["test"], by="fold")


HOLLOW = '<Annotations><Annotation><Attributes><Attribute Name="Lymphocyte"/></Attributes><Regions><Region Id="9"/>'
HOLLOW += "</Regions></Annotation></Annotations>"
STEM = f"{PATIENT}/{PATIENT}_1"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda r: (r / f"{STEM}.xml").unlink(), r"_1\.xml is missing"),
        (lambda r: (r / f"{STEM}.tif").unlink(), r"_1\.xml has no image: .*_1\.svs or \.tif is missing"),
        (lambda r: (r / f"{STEM}.xml").write_text("<Annotations>"), r"_1\.xml is no XML"),
        (lambda r: (r / f"{STEM}.xml").write_text("<Annotations/>"), r"_1\.xml has no Annotation"),
        (lambda r: (r / f"{STEM}.xml").write_text(HOLLOW), r"_1\.xml: Lymphocyte region 9 has 0 vertices"),
        (
            lambda r: (r / f"{STEM}.xml").write_text(aperio({"Fat": [(1, 1, 5, 5)]})),
            r"_1\.xml has regions of class 'Fat'",
        ),
        (lambda r: (r / f"{STEM}.xml").write_text(aperio({"": [(1, 1, 5, 5)]})), r"_1\.xml has regions of class ''"),
        (
            lambda r: (r / f"{STEM}.xml").write_text(aperio({"Lymphocyte": [(200, 5, 210, 9)]})),
            r"_1\.xml: region 1 .*no pixel in the image of 100 x 80",
        ),
        (lambda r: (r / f"{STEM}.tif").write_bytes(b"no image"), r"_1\.tif cannot be read"),
        (lambda r: (r / f"{STEM}.svs").write_bytes(b"no slide"), r"_1\.svs cannot be read"),
        (lambda r: tifffile.imwrite(r / f"{STEM}.tif", np.zeros((80, 100), np.uint8)), r"_1\.tif is uint8 of shape"),
    ],
)
def test_monusac_in_a_wrong_layout_is_named_with_its_file(tmp_path: Path, spoil: Spoil, complaint: str) -> None:
    spoil(write_monusac(tmp_path))
    with pytest.raises(WrongLayout, match=complaint):
        monusac.read(tmp_path)


@pytest.fixture(scope="module")
def real(data_root: Path) -> Sample:
    path = data_root / "slides" / "MoNuSAC_A9K0_1.svs"
    if not path.is_file():
        pytest.skip("slides/MoNuSAC_A9K0_1.svs is not there")
    return monusac.read(path)[0]


def test_the_real_slide_has_a_nucleus_for_each_of_its_321_regions(real: Sample) -> None:
    assert real.counts == {"epithelial": 314, "lymphocyte": 0, "macrophage": 7, "neutrophil": 0}
    assert (real.image.shape, round(real.mpp, 5), real.group) == ((1153, 1307, 3), 0.19448, "MoNuSAC_A9K0")


def test_the_resolution_of_a_slide_is_its_own(tmp_path: Path, data_root: Path, real: Sample) -> None:
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "a_1.svs").symlink_to(data_root / "slides" / f"{real.name}.svs")
    (tmp_path / "P1" / "a_1.xml").write_text(aperio(CELLS, "0.5"))
    assert [(s.mpp, s.group) for s in monusac.read(tmp_path)] == [(real.mpp, "P1")]


def test_nuclei_of_the_real_slide_have_the_areas_that_its_annotation_states(real: Sample, data_root: Path) -> None:
    text = (data_root / "slides" / "MoNuSAC_A9K0_1.xml").read_text()
    stated = np.array([float(part.split('"')[0]) for part in text.split(' Area="')[1:]])
    found = np.bincount(real.instance_map.ravel(), minlength=len(stated) + 1)[1:]
    assert np.median(found / stated) == pytest.approx(1, abs=0.02)
    assert np.abs(found / stated - 1).max() < 0.5


def test_real_nuclei_are_darker_than_what_surrounds_them(real: Sample) -> None:
    nuclei = real.type_map == MONUSAC.id_of("epithelial")
    assert real.image[nuclei].mean() < 0.75 * real.image[real.instance_map == 0].mean()
