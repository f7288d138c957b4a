"""DICOM slides for tests: attributes of a drawn one, and the real one, told where it lies on the glass."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.nuclei.types import Mpp

NEEDS = "the extra dicom is not installed"


def image(width: int, height: int, **changes: object) -> Any:
    """Attributes of a whole slide image, as a pydicom `Dataset`; None takes one away."""
    dataset = pytest.importorskip("pydicom", reason=NEEDS).dataset.Dataset
    made, spacing, shared, origin = dataset(), dataset(), dataset(), dataset()
    spacing.PixelSpacing, spacing.SliceThickness = [0.0005, 0.0005], 0.001
    shared.PixelMeasuresSequence = [spacing]
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 10, 20
    values = {
        **{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6", "SOPInstanceUID": "1.2.3.1", "Modality": "SM"},
        **{"StudyInstanceUID": "1.2.3.2", "SeriesInstanceUID": "1.2.3.3", "FrameOfReferenceUID": "1.2.3.4"},
        **{"PatientID": "P1", "PatientName": "Doe^Jane", "PatientBirthDate": "19700101", "PatientSex": "F"},
        **{"StudyID": "7", "StudyDate": "20260102", "StudyTime": "101112", "AccessionNumber": "A1"},
        **{"ReferringPhysicianName": "", "Manufacturer": "Drawn", "Rows": 256, "Columns": 256, "NumberOfFrames": 1},
        **{"ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "DimensionOrganizationType": "TILED_FULL"},
        **{"TotalPixelMatrixColumns": width, "TotalPixelMatrixRows": height, "SamplesPerPixel": 3},
        **{"ImageOrientationSlide": [0, -1, 0, -1, 0, 0], "TotalPixelMatrixOriginSequence": [origin]},
        **{"SharedFunctionalGroupsSequence": [shared], "ImagedVolumeWidth": 0.5, "ImagedVolumeHeight": 0.4},
    }
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def origin(width: int = 600, height: int = 480, **changes: object) -> Any:
    """Where drawn results come from."""
    from app.formats.dicom import Origin

    values = {
        **{"image": image(width, height), "header_sha256": "1" * 64, "model": "ink", "model_version": "1"},
        **{"model_sha256": "a" * 64, "config_sha256": "b" * 64, "profile": "fast", "mpp": Mpp(0.5, 0.5, "file")},
        **{"made": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), "tiles_sha256": "c" * 64},
        **{"service_version": "0.1.0", "revision": "unknown"},
    }
    return Origin(**(values | changes))


def real(data_root: Path, folder: Path, placed: bool) -> Path:
    """A copy of the real slide; its level 0 does not say where it lies on the glass unless `placed`."""
    pydicom = pytest.importorskip("pydicom", reason=NEEDS)
    from app.formats import dicomparts  # noqa: F401 - a UID in its header ends in a dot

    given = data_root / "slides" / "dicom_cmu1_small"
    if not given.is_dir():
        pytest.skip("no DICOM slide in KARYON_DATA")
    folder.mkdir()
    for file in given.iterdir():
        shutil.copyfile(file, folder / file.name)
    if placed:
        level0 = folder / "level-0-frames-0-30.dcm"
        whole, where = pydicom.dcmread(level0), pydicom.Dataset()
        where.XOffsetInSlideCoordinateSystem, where.YOffsetInSlideCoordinateSystem = 0, 0
        whole.TotalPixelMatrixOriginSequence = [where]
        whole.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 0.001
        whole.save_as(level0)
    return folder
