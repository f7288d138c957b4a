"""How does a data set reach a machine that takes only so much at a time? In parts, each of them whole files.

    python -m training.data.pack pack ../data/lizard parts --sources glas dpath pannuke --mb 40
    python -m training.data.pack unpack parts ../data/lizard          # there; parts may come one by one

A part is a tar file that can be unpacked without the others; what comes out is the publisher's layout.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from training.data import layout, lizard
from training.data.layout import WrongLayout


def pack(root: Path, folder: Path, sources: Collection[str] | None, most: int) -> list[Path]:
    """Write the files of some of Lizard's sources into as few parts as their order gives.

    Args:
        root: of the data set.
        folder: for the parts, made if it is not there; parts that lie there are replaced.
        sources: see `training.data.lizard`; None for all.
        most: bytes of files in a part; one file may be larger than that.

    Raises:
        WrongLayout: a file is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in parts_in(folder):
        old.unlink()
    return [_write(folder / f"lizard-{n:02d}.tar", root, files) for n, files in enumerate(_shared(root, sources, most))]


def unpack(folder: Path, root: Path) -> int:
    """Bring the parts that lie in a folder into one data set; the number of them.

    Raises:
        WrongLayout: there is none.
    """
    parts = parts_in(folder)
    if not parts:
        raise WrongLayout(f"{folder} holds no lizard-NN.tar")
    for part in parts:
        with tarfile.open(part) as archive:
            archive.extractall(root, filter="data")
    return len(parts)


def parts_in(folder: Path) -> list[Path]:
    """The parts in a folder, in order."""
    return sorted(folder.glob("lizard-[0-9][0-9].tar"))


def _shared(root: Path, sources: Collection[str] | None, most: int) -> Iterator[list[Path]]:
    part: list[Path] = []
    size = 0
    for path in _files(root, sources):
        if part and size + path.stat().st_size > most:
            yield part
            part, size = [], 0
        part.append(path)
        size += path.stat().st_size
    yield part


def _files(root: Path, sources: Collection[str] | None) -> Iterator[Path]:
    wanted = layout.known(sources, lizard.SOURCES, "Lizard")
    labels = root / "Lizard_Labels"
    yield layout.present(labels / "info.csv")
    for image in sorted(p for folder in root.glob("Lizard_Images*") for p in folder.glob("*.png")):
        if image.stem.split("_")[0] in wanted:
            yield image
            yield layout.present(labels / "Labels" / f"{image.stem}.mat")


def _write(path: Path, root: Path, files: Sequence[Path]) -> Path:
    with tarfile.open(path, "w") as archive:
        for file in files:
            archive.add(file, str(file.relative_to(root)))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="a data set into parts")
    packing.add_argument("root", type=Path)
    packing.add_argument("parts", type=Path)
    packing.add_argument("--sources", nargs="+", help="collections to take; all by default")
    packing.add_argument("--mb", type=float, default=40, help="most megabytes of files in a part")
    unpacking = commands.add_parser("unpack", help="parts into a data set")
    unpacking.add_argument("parts", type=Path)
    unpacking.add_argument("root", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "unpack":
            print(f"{unpack(arguments.parts, arguments.root)} parts unpacked into {arguments.root}")
            return
        for part in pack(arguments.root, arguments.parts, arguments.sources, int(arguments.mb * 1e6)):
            print(f"{part}: {part.stat().st_size / 1e6:.1f} MB")
    except WrongLayout as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
