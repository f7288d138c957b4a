"""Which kinds of nucleus there are: ids, names and colours, in the order of the CoNIC challenge."""

from __future__ import annotations

from typing import NamedTuple


class NucleusClass(NamedTuple):
    """One kind of nucleus: its id on type maps (0 is background), lower-case name, and RGB colour."""

    id: int
    name: str
    colour: tuple[int, int, int]


# Colours that stay apart for colour-blind readers, and from H&E: at least 21 (CIEDE2000) between any two and 10 from
# chromatin, eosin and glass, for normal sight and full protanopia, deuteranopia and tritanopia. A search from the
# Okabe-Ito palette found them; its own orange, vermilion and yellow come as near as 11.6.
CLASSES: tuple[NucleusClass, ...] = (
    NucleusClass(1, "neutrophil", (0, 140, 115)),
    NucleusClass(2, "epithelial", (225, 50, 10)),
    NucleusClass(3, "lymphocyte", (48, 45, 240)),
    NucleusClass(4, "plasma", (155, 190, 255)),
    NucleusClass(5, "eosinophil", (250, 230, 90)),
    NucleusClass(6, "connective", (90, 30, 42)),
)
NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
BY_ID: dict[int, NucleusClass] = {c.id: c for c in CLASSES}
