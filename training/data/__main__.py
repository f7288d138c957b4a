"""What lies in this folder?

    python -m training.data describe ../data/lizard

prints the data set's card (images, nuclei per class, um per pixel) as Markdown, and writes one image with its nuclei
outlined.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from training.data.card import describe, overlay
from training.data.layout import WrongLayout
from training.data.readers import READERS, find


def main(words: Sequence[str] | None = None) -> None:
    """Run a command line, by default the process' own.

    Raises:
        SystemExit: no data set was found, or a file of it does not fit; the message names it.
    """
    arguments = _parser().parse_args(words)
    try:
        reader = READERS[arguments.reader] if arguments.reader else find(arguments.path)
        samples = reader.iterate(arguments.path, arguments.source)
        card = describe(reader, tqdm(samples, desc=reader.name, unit="image"))
    except WrongLayout as error:
        raise SystemExit(str(error)) from error
    print(card.markdown())
    if card.example is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"{reader.name}_{card.example.name}.png"
        cv2.imwrite(str(path), overlay(card.example)[..., ::-1])
        print(f"\noverlay: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command = parser.add_subparsers(required=True).add_parser("describe", help="card and overlay of a data set")
    command.add_argument("path", type=Path, help="root of the data set")
    command.add_argument("--reader", choices=sorted(READERS), help="by default the one that fits the layout")
    command.add_argument("--source", nargs="+", help="collections or published folds to take; all by default")
    command.add_argument("--out", type=Path, default=Path("out/data"), help="folder for the overlay")
    return parser


if __name__ == "__main__":
    main()
