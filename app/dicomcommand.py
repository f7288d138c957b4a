"""How does `karyon dicom` read its command line?"""
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.arguments import positive
from app.formats.dicom import KINDS

if TYPE_CHECKING:
    from app.settings import Settings

Subparsers = Any  # argparse's own type is private
DICOM = """Find, classify and measure all nuclei of a DICOM slide, and write them as DICOM (needs the extra dicom).

SLIDE is a whole slide image, a .dcm file or the folder of its levels. FOLDER gets
  ann.dcm  Microscopy Bulk Simple Annotations: the outline, area and probability of every nucleus, a group per class
  seg.dcm  a Segmentation (label map): the class of every pixel of level 0, segment number = class id
  sr.dcm   a structured report, TID 1500, unverified: count and density of each class
They belong to the slide's study and refer to its level-0 image; what its file says of the patient is in them. The same
results are the same bytes under the same UIDs. A slide that does not say where it lies on the glass has no
segmentation: --kind ann,sr.
What is done is kept in a folder beside FOLDER until all is written: after an interruption the same command goes on.

--store then sends the files by STOW-RS to the archive of KARYON_DICOMWEB_URL (with KARYON_DICOMWEB_TOKEN, if set) and
sees that it confirms each. The slide itself is not sent. The files stay in FOLDER, whatever the archive says.
Research use only. Not for diagnostic procedures."""


def add(commands: Subparsers, settings_with: Callable[..., Settings]) -> None:
    """Add the command to the grammar.

    Args:
        commands: of `karyon`.
        settings_with: the settings, with what was given on the command line.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "dicom", help="analyse a DICOM slide, write DICOM results", description=DICOM, formatter_class=raw
    )
    parser.add_argument("slide", type=Path, metavar="SLIDE", help="a .dcm file, or the folder of a slide's files")
    parser.add_argument("-o", dest="out", type=folder, required=True, metavar="FOLDER", help="made if it is not there")
    parser.add_argument(
        "--kind", type=kinds, default=KINDS, metavar="K,K", help=f"what to write, of {', '.join(KINDS)} (all three)"
    )
    parser.add_argument("--mpp", type=positive, metavar="F", help="um per pixel of level 0; default: the file's own")
    parser.add_argument("--model", metavar="NAME[@V]", help="model to use (KARYON_MODEL, karyon-lite)")
    parser.add_argument("--profile", choices=["fast", "accurate"], help="one view, or the paper's three")
    parser.add_argument("--store", action="store_true", help="send the files to the archive of KARYON_DICOMWEB_URL")
    parser.set_defaults(run=partial(run, settings_with=settings_with))


def kinds(text: str) -> tuple[str, ...]:
    """What to write: names from `KINDS` with commas between them, in the order of `KINDS`."""
    given = text.split(",")
    if unknown := set(given) - set(KINDS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in given)


def folder(text: str) -> Path:
    """A folder that is there, or can be made."""
    path = Path(text).resolve()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


def run(arguments: argparse.Namespace, settings_with: Callable[..., Settings]) -> int:
    """`karyon dicom`."""
    from app.api.wholeslide import Wish, analyse

    settings = settings_with(model=arguments.model)
    if arguments.store and settings.dicomweb_url is None:
        print("karyon: --store needs KARYON_DICOMWEB_URL, the archive's DICOMweb address", file=sys.stderr)
        return 2
    wish = Wish(arguments.slide, arguments.out, arguments.mpp, arguments.profile, kinds=arguments.kind)
    print(analyse(wish, settings), file=sys.stderr)
    if arguments.store:
        _store([file for file in wish.files().values() if file.exists()], settings)
    return 0


def _store(files: list[Path], settings: Settings) -> None:
    from app.formats.dicomweb import send

    assert settings.dicomweb_url is not None
    for file in files:
        send(file, settings.dicomweb_url, settings.dicomweb_token)
    print(f"the archive took {', '.join(file.name for file in files)}", file=sys.stderr)
