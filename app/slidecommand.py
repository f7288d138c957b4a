"""How does `karyon slide` read its command line?"""
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.arguments import count, output, positive

if TYPE_CHECKING:
    from app.settings import Settings

Subparsers = Any  # argparse's own type is private
ENDINGS = ".geojson, .csv, .json or .parquet"
SLIDE = """Find, classify and measure all nuclei of a slide, in this process, without a server.

SLIDE is an SVS, NDPI, MRXS, SCN, BIF, TIFF, PNG or JPEG, or a folder of DICOM files. Glass is left out. The ending of
OUT decides what is written: .geojson, .csv, .json (hover_net's) or .parquet (needs the extra tables).
What is done is kept in a folder beside OUT until OUT is written: after an interruption the same command goes on."""


def add(commands: Subparsers, settings_with: Callable[..., Settings]) -> None:
    """Add the command to the grammar.

    Args:
        commands: of `karyon`.
        settings_with: the settings, with what was given on the command line.
    """
    raw = argparse.RawDescriptionHelpFormatter
    slide = commands.add_parser("slide", help="analyse a whole slide", description=SLIDE, formatter_class=raw)
    slide.add_argument("slide", type=Path, metavar="SLIDE", help="a slide, or a folder of DICOM files")
    slide.add_argument(
        "-o", dest="out", type=partial(output, endings=ENDINGS), required=True, metavar="OUT", help=ENDINGS
    )
    slide.add_argument("--mpp", type=positive, metavar="F", help="um per pixel of level 0; default: the file's own")
    slide.add_argument("--window", type=count, metavar="N", help="side of a window (KARYON_SLIDE_WINDOW, 1280)")
    slide.add_argument("--model", metavar="NAME[@V]", help="model to use (KARYON_MODEL, karyon-lite)")
    slide.add_argument("--profile", choices=["fast", "accurate"], help="one view, or the paper's three")
    slide.set_defaults(run=partial(run, settings_with=settings_with))


def run(arguments: argparse.Namespace, settings_with: Callable[..., Settings]) -> int:
    """`karyon slide`."""
    from app.api.wholeslide import Wish, analyse

    settings = settings_with(model=arguments.model, slide_window=arguments.window)
    wish = Wish(arguments.slide, arguments.out, arguments.mpp, arguments.profile, arguments.window)
    print(analyse(wish, settings), file=sys.stderr)
    return 0
