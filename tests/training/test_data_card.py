"""Which data set lies at a path, what is in it, and how it is split and resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.layouts import PATIENT, corner_patches, write_conic, write_lizard, write_monusac, write_pannuke
from training.data import lizard
from training.data.__main__ import main
from training.data.card import COLOURS, describe, overlay, rim
from training.data.layout import WrongLayout
from training.data.readers import READERS, find
from training.data.resample import at_mpp, nearest
from training.data.sample import Leak, Sample, split_by_collection
from training.data.taxonomies import KARYON

NAMES = ["glas_1", "glas_2", "dpath_1", "consep_1"]


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return lizard.read(write_lizard(tmp_path / "lizard", NAMES))


def write_small_conic(root: Path) -> Path:
    large = lizard.read(write_lizard(root / "source", ["glas_1"], (256, 256)))
    return write_conic(root / "conic", corner_patches(large[0])[:1])


WRITERS: dict[str, Callable[[Path], Path]] = {
    "lizard": lambda root: write_lizard(root, NAMES),
    "conic": write_small_conic,
    "pannuke": write_pannuke,
    "monusac": write_monusac,
}


@pytest.mark.parametrize("name", READERS)
def test_a_data_set_is_known_by_its_layout(tmp_path: Path, name: str) -> None:
    assert find(WRITERS[name](tmp_path)).name == name


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_whole_samples_of_its_taxonomy(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    for sample in reader.read(WRITERS[name](tmp_path)):
        assert sample.taxonomy == reader.taxonomy
        assert (sample.image.dtype, sample.instance_map.dtype, sample.types.dtype) == (np.uint8, np.int32, np.uint8)
        assert sample.image.shape == (*sample.instance_map.shape, 3)
        assert sample.types[0] == 0
        assert set(np.unique(sample.types[1:])) <= {0, *range(1, len(reader.taxonomy.classes) + 1)}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_a_source_that_its_data_set_has_not(tmp_path: Path, name: str) -> None:
    with pytest.raises(WrongLayout, match="no source kidney; it has"):
        READERS[name].read(WRITERS[name](tmp_path), ["kidney"])


def test_an_unknown_layout_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(WrongLayout) as refusal:
        find(tmp_path)
    assert all(f"{reader.name}: {reader.looks_for}" in str(refusal.value) for reader in READERS.values())
    with pytest.raises(WrongLayout, match="nowhere does not exist"):
        find(tmp_path / "nowhere")


def test_a_card_counts_images_classes_groups_and_folds(samples: list[Sample]) -> None:
    card = describe(READERS["lizard"], samples)
    assert (card.images, card.pixels, card.mpps, len(card.groups)) == (4, 4 * 90 * 110, {0.5}, 3)
    assert (dict(card.collections), dict(card.folds)) == ({"consep": 1, "dpath": 1, "glas": 2}, {"1": 4})
    assert "| epithelial | 4 | 33.3% | 1 | 1 | 2 |" in card.markdown().splitlines()
    assert "| median area of a nucleus | 27.0 um² |" in card.markdown().splitlines()


def test_describe_prints_the_card_and_writes_the_overlay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", str(write_monusac(tmp_path / "set")), "--out", str(tmp_path / "out")])
    path = tmp_path / "out" / f"monusac_{PATIENT}_1.png"
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"overlay: {path}"
    assert "| epithelial | 2 | 50.0% | 2 |" in printed
    assert cv2.imread(str(path)).shape[1] == 200


def test_describe_stops_with_the_name_of_a_file_that_does_not_fit(tmp_path: Path) -> None:
    next(write_monusac(tmp_path).rglob("*.xml")).write_text("<Annotations/>")
    with pytest.raises(SystemExit, match=r"_1\.xml has no Annotation"):
        main(["describe", str(tmp_path), "--out", str(tmp_path / "out")])


def test_describe_takes_the_named_reader_and_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = WRITERS["pannuke"](tmp_path / "set")
    main(["describe", str(root), "--reader", "pannuke", "--source", "fold2", "--out", str(tmp_path / "out")])
    assert "| images per published fold | fold2 1 |" in capsys.readouterr().out


def test_an_overlay_outlines_each_nucleus_in_the_colour_of_its_class(samples: list[Sample]) -> None:
    sample = samples[0]
    picture = overlay(sample)[: 2 * 90]
    kinds = np.repeat(np.repeat(sample.type_map, 2, 0), 2, 1)
    edge = rim(np.repeat(np.repeat(sample.instance_map, 2, 0), 2, 1), 2)
    for kind, name in enumerate(KARYON.classes, start=1):
        assert (picture[edge & (kinds == kind)] == COLOURS[name]).all()
    np.testing.assert_array_equal(picture[~edge], np.repeat(np.repeat(sample.image, 2, 0), 2, 1)[~edge])


def test_a_rim_is_closed_around_a_nucleus() -> None:
    disc = np.zeros((9, 9), np.int32)
    disc[2:7, 2:7] = 4
    inner = np.zeros((9, 9), bool)
    inner[3:6, 3:6] = True
    np.testing.assert_array_equal(rim(disc, 1), (disc > 0) & ~inner)


@pytest.mark.parametrize("name", READERS)
def test_every_class_has_a_colour_of_its_own(name: str) -> None:
    classes = READERS[name].taxonomy.classes
    assert len({COLOURS[c] for c in classes}) == len(classes)


def test_a_source_is_held_out_whole(samples: list[Sample]) -> None:
    training, held = split_by_collection(samples, ["consep", "dpath"])
    assert ([s.name for s in training], [s.name for s in held]) == (["glas_1", "glas_2"], ["consep_1", "dpath_1"])


@pytest.mark.parametrize("held", [["kidney"], ["glas", "dpath", "consep"]])
def test_a_split_needs_sources_that_are_there_and_one_that_remains(samples: list[Sample], held: list[str]) -> None:
    with pytest.raises(ValueError, match=r"collections are \['consep', 'dpath', 'glas'\], and one must remain"):
        split_by_collection(samples, held)


def test_a_slide_in_two_folds_is_a_leak(samples: list[Sample]) -> None:
    moved = [replace(s, fold="2") if s.name == "glas_2" else s for s in samples]
    with pytest.raises(Leak, match="slide0 of glas"):
        split_by_collection(moved, ["2"], by="fold")


def test_a_copy_of_an_image_under_another_name_is_a_leak(samples: list[Sample]) -> None:
    copied = [replace(s, image=samples[0].image.copy()) if s.collection == "glas" else s for s in samples]
    with pytest.raises(Leak, match="glas_1 is consep_1"):
        split_by_collection(copied, ["glas"])


def test_two_published_folds_of_lizard_share_a_slide(data_root: Path) -> None:
    dpath = lizard.read(data_root / "lizard", ["dpath"])
    with pytest.raises(Leak, match=r"18-13347A_2019-05-08 01_31_58 of dpath$"):
        split_by_collection(dpath, ["2"], by="fold")


def test_a_sample_at_its_own_resolution_is_itself(samples: list[Sample]) -> None:
    assert at_mpp(samples[0], 0.5) is samples[0]


@pytest.mark.parametrize("factor", [2, 3])
def test_finer_and_back_is_the_same_nuclei(samples: list[Sample], factor: int) -> None:
    there = at_mpp(samples[0], 0.5 / factor)
    assert there.image.shape == (90 * factor, 110 * factor, 3)
    back = at_mpp(there, 0.5)
    np.testing.assert_array_equal(back.instance_map, samples[0].instance_map)
    assert back.counts == there.counts == samples[0].counts


def test_a_coarser_pixel_takes_what_lies_under_its_centre() -> None:
    np.testing.assert_array_equal(nearest(np.arange(9, dtype=np.int32)[None], 1, 3), [[1, 4, 7]])


def test_nuclei_keep_their_size_and_place_in_microns(samples: list[Sample]) -> None:
    coarse = at_mpp(samples[0], 0.73)
    np.testing.assert_allclose((coarse.centres[:, :2] + 0.5) * 0.73, (samples[0].centres[:, :2] + 0.5) * 0.5, atol=0.73)
    assert coarse.image.mean() == pytest.approx(samples[0].image.mean(), rel=0.02)


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan")])
def test_no_resolution_is_no_resolution(samples: list[Sample], mpp: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        at_mpp(samples[0], mpp)
