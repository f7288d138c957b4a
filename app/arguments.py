"""Which words on a command line are numbers and files that make sense?"""

from __future__ import annotations

import argparse
from pathlib import Path


def positive(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def count(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


def output(text: str, endings: str = ".geojson, .png, .csv or .json") -> Path:
    """An output file whose ending says what to write."""
    path = Path(text)
    if path.suffix.lower() not in endings.replace(" or", ",").split(", "):
        raise argparse.ArgumentTypeError(f"the file must end in {endings}")
    return path
