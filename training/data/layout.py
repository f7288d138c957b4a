"""What do all readers refuse in the same words? Files that are missing, unreadable, or do not fit one another."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class WrongLayout(ValueError):
    """A data set is not in its publisher's layout; the message names the file."""


def present(path: Path) -> Path:
    """The path itself.

    Raises:
        WrongLayout: there is no such file.
    """
    if not path.is_file():
        raise WrongLayout(f"{path} is missing")
    return path


def array(path: Path, shape: Sequence[int | None], kinds: str) -> npt.NDArray[Any]:
    """A `.npy` file, memory-mapped: what is not looked at is not read.

    Args:
        path: of the file.
        shape: wanted, None where any length will do.
        kinds: numpy kind letters that are accepted ("u" unsigned, "i" signed, "f" float, "U" text).

    Raises:
        WrongLayout: missing, no array, or of another shape or kind.
    """
    try:
        content = np.load(present(path), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise WrongLayout(f"{path} cannot be read as an array: {error}") from error
    fits = len(content.shape) == len(shape) and all(w in (None, n) for w, n in zip(shape, content.shape, strict=True))
    if not fits:
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise WrongLayout(f"{path} has shape {content.shape}, expected ({wanted})")
    if content.dtype.kind not in kinds:
        raise WrongLayout(f"{path} holds {content.dtype}, which is no kind of {kinds}")
    return np.asanyarray(content)


def table(path: Path, columns: Collection[str], rows: int | None = None) -> list[dict[str, str]]:
    """The rows of a CSV file by column name.

    Args:
        path: of the file.
        columns: that it must have.
        rows: that it must have, None if any number will do.

    Raises:
        WrongLayout: missing, or without one of the columns, or of another length.
    """
    with present(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        content = list(reader)
    absent = [c for c in columns if c not in (reader.fieldnames or ())]
    if absent:
        raise WrongLayout(f"{path} has no column {', '.join(absent)}")
    if rows is not None and len(content) != rows:
        raise WrongLayout(f"{path} has {len(content)} rows, expected {rows}")
    return content


def known(sources: Collection[str] | None, there: Sequence[str], name: str) -> list[str]:
    """The wanted ones of a data set's sources, in its own order; None wants all.

    Raises:
        WrongLayout: one that the data set does not have.
    """
    unknown = sorted(set(sources or ()) - set(there))
    if unknown:
        raise WrongLayout(f"{name} has no source {', '.join(unknown)}; it has {', '.join(there)}")
    return [s for s in there if sources is None or s in sources]
