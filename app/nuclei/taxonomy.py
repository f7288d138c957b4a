"""Which kinds of nucleus there are: ids, names and colours, in the order of the CoNIC challenge."""

from __future__ import annotations

from typing import NamedTuple


class NucleusClass(NamedTuple):
    """One kind of nucleus: its id on type maps (0 is background), lower-case name, and RGB colour."""

    id: int
    name: str
    colour: tuple[int, int, int]


# Colours from the Okabe-Ito palette: they stay apart for colour-blind readers.
CLASSES: tuple[NucleusClass, ...] = (
    NucleusClass(1, "neutrophil", (0, 158, 115)),
    NucleusClass(2, "epithelial", (213, 94, 0)),
    NucleusClass(3, "lymphocyte", (0, 114, 178)),
    NucleusClass(4, "plasma", (86, 180, 233)),
    NucleusClass(5, "eosinophil", (240, 228, 66)),
    NucleusClass(6, "connective", (230, 159, 0)),
)
NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
BY_ID: dict[int, NucleusClass] = {c.id: c for c in CLASSES}
