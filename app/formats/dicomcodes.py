"""Which code stands for which thing in DICOM results? The only place where codes are written.

Nothing downstream notices a wrong code: each row has a source, and a test checks the check digits of SNOMED CT codes.
No terminologist has signed this table off, and some countries ask for a SNOMED licence.
"""

from __future__ import annotations

from typing import NamedTuple

from app.formats.table import UNCLASSIFIED
from app.nuclei.taxonomy import BY_ID


class Coded(NamedTuple):
    """One concept: code, scheme, meaning, and where it was read."""

    value: str
    scheme: str
    meaning: str
    source: str


SNOMED, DICOM, UCUM, PRIVATE = "SCT", "DCM", "UCUM", "99KARYON"
_BMDEEP = "NCI Imaging Data Commons, BMDeep"
_PANOPTILS = "NCI Imaging Data Commons, PanopTILs"

NUCLEUS = Coded("84640000", SNOMED, "Nucleus", "DICOM CID 8135")
OF_CLASS: dict[str, Coded] = {  # a row per class of the taxonomy
    "neutrophil": Coded("80153006", SNOMED, "Segmented neutrophil", _BMDEEP),
    "epithelial": Coded("4212006", SNOMED, "Epithelial cell", f"{_PANOPTILS}; HL7 Portugal"),
    "lymphocyte": Coded("56972008", SNOMED, "Lymphocyte", f"{_BMDEEP}, PanopTILs"),
    "plasma": Coded("113335003", SNOMED, "Plasma cell", f"{_BMDEEP}, PanopTILs"),
    "eosinophil": Coded("14793004", SNOMED, "Eosinophil, segmented", f"{_BMDEEP}; HL7 Portugal"),
    # No code for all of fibroblasts, muscle and endothelium was confirmed: a cell, and the label says which.
    "connective": Coded("4421005", SNOMED, "Cell", "DICOM CID 8135"),
}
CATEGORY = Coded("91723000", SNOMED, "Anatomical Structure", "DICOM CID 7150")
PROCEDURE = Coded("104157003", SNOMED, "Light microscopy", "DICOM CID 8131")
AREA = Coded("42798000", SNOMED, "Area", "DICOM CID 8136")
PROBABILITY = Coded("122157", DICOM, "Probability", "DICOM PS3.16, Annex D")
ALGORITHM_FAMILY = Coded("123110", DICOM, "Artificial Intelligence", "DICOM CID 7162")
PROCESSING = Coded("109102", DICOM, "Processing Equipment", "DICOM CID 7005")
DEVICE = Coded("121007", DICOM, "Device", "DICOM CID 270")
COMMENT = Coded("121106", DICOM, "Comment", "DICOM PS3.16, Annex D")
COUNT = Coded("NUCLEI_COUNT", PRIVATE, "Number of nuclei", "no code is assigned")
DENSITY = Coded("NUCLEI_DENSITY", PRIVATE, "Nuclei per analysed area", "no code is assigned")
NO_UNITS = Coded("1", UCUM, "no units", "DICOM CID 7181")
SQUARE_MICROMETER = Coded("um2", UCUM, "square micrometer", "DICOM CID 7461")
PER_SQUARE_MILLIMETER = Coded("/mm2", UCUM, "per square millimeter", "UCUM 2.1")


def of_type(type_id: int) -> tuple[str, Coded]:
    """Label and code of a class id; 0 is a nucleus whose class stayed open."""
    if type_id == 0:
        return UNCLASSIFIED, NUCLEUS
    name = BY_ID[type_id].name
    return name, OF_CLASS[name]
