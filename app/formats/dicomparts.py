"""Which parts do annotations, segmentations and reports share? Built with highdicom; needs the extra `dicom`."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import IO, Any, TypeVar

import highdicom
from highdicom.color import CIELabColor
from highdicom.enum import PatientSexValues
from highdicom.sr import CodedConcept
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, DT, TM

from app.formats.dicom import Origin
from app.formats.dicomcodes import ALGORITHM_FAMILY, PROCESSING, Coded
from app.formats.document import NOTICE
from app.nuclei.errors import InvalidImage
from app.nuclei.taxonomy import BY_ID

# What a scanner wrote of the patient and the study is repeated as it is. The libraries would complain of odd values by
# quoting them, in logs and warnings, where no patient's data may stand.
config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
for _library in ("highdicom", "pydicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)

Made = TypeVar("Made", bound=Dataset)
MAKER = "Karyon"
NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Attributes of type 2: a file must have them, though empty. Some converters leave them out."""
_PARSED: dict[str, Callable[[Any], object]] = {  # what highdicom does not take as it is
    **{"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM},
    "PatientSex": lambda value: value is None or PatientSexValues(value),
}
SERIES_NUMBER = {"ann": 9001, "seg": 9002, "sr": 9003}  # for people to read, far from those of scanners
OPEN_COLOUR = (128, 128, 128)
IN_MEMORY = 64 * 2**20  # bytes of a file; beyond that it lies on the disk until it is sent
PIECE = 2**20


def concept(coded: Coded) -> CodedConcept:
    """A row of the code table as DICOM writes it."""
    return CodedConcept(coded.value, coded.scheme, coded.meaning)


def colour(type_id: int) -> CIELabColor:
    """The display colour of a class."""
    return CIELabColor.from_rgb(*(BY_ID[type_id].colour if type_id else OPEN_COLOUR))


def source_image(given: Dataset) -> Dataset:
    """A copy of the level-0 image's attributes for highdicom, those that may be empty filled in.

    The patient's name is taken out, for highdicom warns of unusual ones by printing them; `settled` puts it back.

    Raises:
        InvalidImage: if one that results must repeat is missing, or cannot be written as the standard has it.
    """
    image = copy.deepcopy(given)
    for keyword in NEEDED:
        if not image.get(keyword):
            raise InvalidImage(f"the slide's DICOM file has no {keyword}, which DICOM results must repeat")
    for keyword in MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    for keyword, parse in _PARSED.items():
        try:
            parse(image.get(keyword) or None)
        except ValueError:  # whose text would quote the patient's data
            raise InvalidImage(f"{keyword} of the slide's DICOM file is not as the standard has it") from None
    image.PatientName = ""
    return image


def algorithm(origin: Origin) -> highdicom.AlgorithmIdentificationSequence:
    """Which model found the nuclei, with what parameters."""
    return highdicom.AlgorithmIdentificationSequence(
        origin.model[:64], concept(ALGORITHM_FAMILY), origin.model_version[:64], MAKER, origin.parameters()
    )


def common(origin: Origin, kind: str) -> dict[str, Any]:
    """Arguments that every object takes: its identity, its time, what made it, what it may be used for."""
    moment = origin.made.astimezone(UTC)
    software = (f"karyon {origin.service_version}", origin.revision)
    equipment = highdicom.ContributingEquipment(
        MAKER,
        concept(PROCESSING),
        manufacturer_model_name=MAKER,
        software_versions=software,
        contribution_datetime=_said(moment),
        contribution_description=f"Nuclei found and classified by {origin.model} {origin.model_version}. {NOTICE}",
    )
    return {
        "series_instance_uid": origin.uid(f"series-{kind}"),
        "series_number": SERIES_NUMBER[kind],
        "series_description": NOTICE,
        "sop_instance_uid": origin.uid(kind),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": software,
        "device_serial_number": origin.model_sha256[:16],  # the standard demands one: another model, another device
        "content_date": moment.date(),
        "content_time": moment.time(),
        "transfer_syntax_uid": ExplicitVRLittleEndian,
        "contributing_equipment": [equipment],
    }


def settled(made: Made, origin: Origin) -> Made:
    """The same object with the patient's name, and the time of the results where highdicom wrote that of writing."""
    made.PatientName = origin.image.get("PatientName", "")
    moment = origin.made.astimezone(UTC)
    made.InstanceCreationDate, made.InstanceCreationTime = DA(moment.date()), TM(moment.time())
    made.ContributingEquipmentSequence[-1].ContributionDateTime = DT(_said(moment))  # highdicom's mention of itself
    return made


def spooled() -> IO[bytes]:
    """A file that lies in memory while it is small. Who asked for it closes it."""
    return tempfile.SpooledTemporaryFile(IN_MEMORY)


def encoded(made: Dataset) -> IO[bytes]:
    """An object as a file, at its beginning."""
    file = spooled()
    made.save_as(file, enforce_file_format=True)
    file.seek(0)
    return file


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """A file from its beginning, piece by piece; it is closed then."""
    with file:
        while piece := file.read(PIECE):
            yield piece


def _said(moment: datetime) -> str:
    """As DICOM writes a moment; only this form says which time zone it means."""
    return moment.strftime("%Y%m%d%H%M%S.%f+0000")
