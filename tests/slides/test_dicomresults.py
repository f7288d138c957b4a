"""Results of a slide that came as DICOM leave as DICOM, and refer to the object that holds level 0."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import shapely

from app.nuclei.errors import Conflict, InvalidImage, MissingExtra, MppRequired, NotDicom, NotFound
from app.nuclei.taxonomy import NAMES
from app.slides.exports import WRITERS, Export
from app.slides.reading import totals, walk
from app.slides.records import NewSlide
from tests.dicomslide import NEEDS, real
from tests.slides.kept import SLIDE, cut_up

pydicom = pytest.importorskip("pydicom", reason=NEEDS)
highdicom = pytest.importorskip("highdicom", reason=NEEDS)
LEVEL0 = "level-0-frames-0-30.dcm"


@pytest.fixture(params=[""])
def slide(request, sqlite_library, data_root):
    """A real DICOM slide with drawn nuclei; the parameter names a file of it."""
    real(data_root, sqlite_library.root / "d", placed=True)
    kept = sqlite_library.add_path(f"d/{request.param}".rstrip("/"))
    for tile in cut_up(200, margin=24):
        sqlite_library.store.put_tile(kept.id, tile)
    return sqlite_library.store.slide(kept.id)


def written(library, slide, kind: str) -> bytes:
    export = Export(library.store.database, slide, None, partial(library.check, slide))
    return b"".join(WRITERS[f"dicom-{kind}"](export))


def changed(library, name: str = LEVEL0, to: str | None = None, **values):
    """Rewrite attributes of a file of the slide, or of a copy of it."""
    file = library.root / "d" / name
    read = pydicom.dcmread(file)
    for keyword, value in values.items():
        setattr(read, keyword, value)
    if "SOPInstanceUID" in values:
        read.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
    read.save_as(file.with_name(to or name))


@pytest.mark.parametrize("slide", ["", LEVEL0, "level-3-frames-0-1.dcm"], indirect=True)
def test_annotations_hold_the_nuclei_of_the_store(sqlite_library, slide):
    read = highdicom.ann.annread(io.BytesIO(written(sqlite_library, slide, "ann")))
    parts = list(walk(sqlite_library.store.database, slide.id))
    for group in read.AnnotationGroupSequence:
        ours = [part.nuclei.type == NAMES.index(group.label) + 1 for part in parts]
        areas = np.concatenate([part.nuclei.area[index] for part, index in zip(parts, ours, strict=True)])
        rings = [shapely.Polygon(ring) for ring in group.get_graphic_data("2D")]
        np.testing.assert_allclose(shapely.area(rings), areas)
        np.testing.assert_allclose(group.get_measurements()[1][:, 0], areas * 0.499**2, rtol=1e-6)
    counted = totals(sqlite_library.store.database, slide.id).counted
    assert sum(group.NumberOfAnnotations for group in read.AnnotationGroupSequence) == counted > 200
    level0 = pydicom.dcmread(sqlite_library.root / "d" / LEVEL0, stop_before_pixels=True)
    assert read.ReferencedImageSequence[0].ReferencedSOPInstanceUID == level0.SOPInstanceUID
    assert read.StudyInstanceUID == level0.StudyInstanceUID


def test_the_segmentation_has_the_size_of_the_slide_and_the_area_of_its_nuclei(sqlite_library, slide):
    read = highdicom.seg.segread(io.BytesIO(written(sqlite_library, slide, "seg")))
    mask = read.get_total_pixel_matrix(combine_segments=True)
    assert mask.shape == (slide.height, slide.width)
    areas = np.zeros(7)
    for part in walk(sqlite_library.store.database, slide.id):
        areas += np.bincount(part.nuclei.type, part.nuclei.area, 7)
    np.testing.assert_array_equal(np.bincount(mask.ravel(), minlength=7)[1:], areas[1:])


def test_the_report_counts_what_the_store_counts(sqlite_library, slide):
    read = highdicom.sr.srread(io.BytesIO(written(sqlite_library, slide, "sr")))
    found = totals(sqlite_library.store.database, slide.id)
    groups = read.content.get_image_measurement_groups()
    figures = [[each.value for each in group.get_measurements()] for group in groups]
    mm2 = found.area * 0.499**2 / 1e6
    assert [group.tracking_identifier for group in groups] == list(NAMES)
    assert figures == [[count, pytest.approx(count / mm2, abs=0.006)] for count in found.counts]


@pytest.mark.parametrize("kind", ["ann", "seg", "sr"])
def test_the_same_results_are_the_same_bytes(sqlite_library, slide, kind):
    first = written(sqlite_library, slide, kind)
    assert written(sqlite_library, slide, kind) == first
    [more] = cut_up(300)[-1:]
    sqlite_library.store.put_tile(slide.id, replace(more, content_sha256="f" * 64))
    later = written(sqlite_library, sqlite_library.store.slide(slide.id), kind)
    uids = {
        pydicom.dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"]).SOPInstanceUID for data in (first, later)
    }
    assert len(uids) == 2


@pytest.mark.parametrize("kind", ["ann", "seg", "sr"])
def test_a_slide_that_changes_while_it_is_read_is_refused(sqlite_library, slide, kind, monkeypatch):
    from app.slides.dicomresults import Results

    unchanged = Results._check_unchanged

    def meanwhile(self, origin):
        sqlite_library.store.put_tile(slide.id, replace(cut_up(300)[0], content_sha256="f" * 64))
        unchanged(self, origin)

    monkeypatch.setattr(Results, "_check_unchanged", meanwhile)
    with pytest.raises(Conflict, match="changed"):
        written(sqlite_library, slide, kind)


@pytest.mark.parametrize("kind", ["ann", "seg", "sr"])
def test_a_slide_without_results_is_refused(sqlite_library, data_root, kind):
    real(data_root, sqlite_library.root / "d", placed=True)
    with pytest.raises(NotFound, match="analysed"):
        written(sqlite_library, sqlite_library.add_path("d"), kind)


def test_a_slide_that_does_not_say_where_it_lies_has_no_segmentation(sqlite_library, data_root):
    real(data_root, sqlite_library.root / "d", placed=False)
    kept = sqlite_library.add_path("d")
    sqlite_library.store.put_tile(kept.id, cut_up(300)[0])
    slide = sqlite_library.store.slide(kept.id)
    with pytest.raises(InvalidImage, match="TotalPixelMatrixOriginSequence"):
        written(sqlite_library, slide, "seg")
    assert written(sqlite_library, slide, "ann")[128:132] == written(sqlite_library, slide, "sr")[128:132] == b"DICM"


def test_results_without_a_scale_are_refused(sqlite_library, slide):
    unscaled = replace(slide, mpp=None)
    with pytest.raises(MppRequired):
        written(sqlite_library, unscaled, "ann")


def test_a_slide_that_is_no_dicom_is_refused(sqlite_library):
    with pytest.raises(NotDicom):
        written(sqlite_library, sqlite_library.store.add_slide(SLIDE), "ann")


def test_without_the_extra_its_name_is_told(sqlite_library, slide, monkeypatch):
    monkeypatch.setattr("app.formats.dicom.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"karyon\[dicom\]"):
        written(sqlite_library, slide, "sr")


def test_a_file_that_changed_or_went_is_refused(sqlite_library, slide):
    changed(sqlite_library, PatientID="somebody else")
    with pytest.raises(Conflict):
        written(sqlite_library, slide, "sr")
    blank = sqlite_library.store.add_slide(NewSlide(100, 100, None, vendor="dicom"))
    with pytest.raises(NotFound):
        written(sqlite_library, blank, "sr")


def test_level_0_in_several_files_is_refused(data_root, sqlite_library):
    from app.slides.wsm import level0

    folder = real(data_root, sqlite_library.root / "d", placed=True)
    assert level0(folder, 2220, 2967).image.SOPInstanceUID.endswith(".499659")
    changed(sqlite_library, to="same.dcm")
    assert level0(folder, 2220, 2967).image.SOPInstanceUID.endswith(".499659")
    changed(sqlite_library, to="other.dcm", SeriesInstanceUID="1.2.3", SOPInstanceUID="1.2.4")
    assert level0(folder, 2220, 2967).image.SOPInstanceUID.endswith(".499659")
    changed(sqlite_library, to="more.dcm", SOPInstanceUID="1.2.5")
    with pytest.raises(InvalidImage, match="several"):
        level0(folder, 2220, 2967)


def test_a_concatenation_a_label_and_a_broken_file_are_refused(data_root, sqlite_library):
    from app.slides.wsm import level0

    folder = real(data_root, sqlite_library.root / "d", placed=True)
    (folder / "notes.txt").write_text("no DICOM")
    changed(sqlite_library, ConcatenationUID="1.2.6")
    with pytest.raises(InvalidImage, match="several"):
        level0(folder, 2220, 2967)
    changed(sqlite_library, ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])
    with pytest.raises(InvalidImage, match="VOLUME"):
        level0(folder, 2220, 2967)
    (folder / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    with pytest.raises(InvalidImage):
        level0(folder, 2220, 2967)
