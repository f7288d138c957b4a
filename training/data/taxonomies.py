"""Which kinds of nucleus does each data set tell apart? Its own; the service's are in `app.nuclei.taxonomy`."""

from __future__ import annotations

from dataclasses import dataclass

from app.nuclei.taxonomy import NAMES


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """The classes of a data set.

    Attributes:
        name: of the scheme; samples of different schemes do not mix.
        classes: lower-case names in id order; the first has id 1, 0 is background.
    """

    name: str
    classes: tuple[str, ...]

    def id_of(self, name: str) -> int | None:
        """Id of a class by its name in any case, None if there is no such class."""
        wanted = name.strip().lower()
        return self.classes.index(wanted) + 1 if wanted in self.classes else None


KARYON = Taxonomy("karyon", NAMES)
"""Lizard and CoNIC (Graham et al., 2021)."""
PANNUKE = Taxonomy("pannuke", ("neoplastic", "inflammatory", "connective", "dead", "epithelial"))
"""The first five channels of `masks.npy` (Gamper et al., 2020)."""
MONUSAC = Taxonomy("monusac", ("epithelial", "lymphocyte", "macrophage", "neutrophil"))
"""The annotation names of the XML files (Verma et al., 2021)."""
