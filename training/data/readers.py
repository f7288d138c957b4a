"""Which data sets can be read, and which one lies at a path?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data import conic, lizard, monusac, pannuke
from training.data.layout import WrongLayout
from training.data.sample import Sample
from training.data.taxonomies import KARYON, MONUSAC, PANNUKE, Taxonomy


@dataclass(frozen=True, slots=True)
class Reader:
    """One data set's layout.

    Attributes:
        name: of the data set.
        looks_for: the files by which it is known, in words.
        licence: of the publisher.
        taxonomy: its classes.
        detect: whether a path looks like it.
        iterate: gives the images at a path one by one, of some sources (collections or published folds) or of all.
    """

    name: str
    looks_for: str
    licence: str
    taxonomy: Taxonomy
    detect: Callable[[Path], bool]
    iterate: Callable[[Path, Collection[str] | None], Iterator[Sample]]

    def read(self, path: Path, sources: Collection[str] | None = None) -> list[Sample]:
        """All images at a path.

        Raises:
            WrongLayout: a file is missing or does not fit; the message names it.
        """
        return list(self.iterate(path, sources))


READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("lizard", "Lizard_Labels/info.csv", lizard.LICENCE, KARYON, lizard.detect, lizard.iterate),
        Reader("conic", " and ".join(conic.FILES), conic.LICENCE, KARYON, conic.detect, conic.iterate),
        Reader("pannuke", "images/fold1/images.npy", pannuke.LICENCE, PANNUKE, pannuke.detect, pannuke.iterate),
        Reader(
            "monusac", "PATIENT/*.xml beside .svs or .tif", monusac.LICENCE, MONUSAC, monusac.detect, monusac.iterate
        ),
    )
}


def find(path: Path) -> Reader:
    """The reader whose data set lies at a path.

    Raises:
        WrongLayout: none does; the message says what each looked for.
    """
    if not path.exists():
        raise WrongLayout(f"{path} does not exist")
    found = next((reader for reader in READERS.values() if reader.detect(path)), None)
    if found is None:
        sought = "; ".join(f"{reader.name}: {reader.looks_for}" for reader in READERS.values())
        raise WrongLayout(f"{path} holds no data set that can be read. Looked for {sought}")
    return found
