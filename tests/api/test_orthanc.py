"""A real archive keeps a slide and its results, and gives them back as they were: `make orthanc` puts one in place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from app.slides.database import Database
from app.slides.exports import WRITERS, Export
from app.slides.library import Library
from app.slides.store import Store
from app.slides.uploads import Files
from tests.conftest import PROJECT
from tests.dicomslide import NEEDS, real
from tests.slides.kept import cut_up

pytest.importorskip("highdicom", reason=NEEDS)
OURS = PROJECT / ".venv" / "orthanc"


def programs() -> tuple[Path, Path]:
    """The server, and its plugin for DICOMweb."""
    server = shutil.which("Orthanc", path=f"{OURS / 'usr/sbin'}:/usr/sbin:/usr/local/sbin")
    plugins = [folder / "usr/share/orthanc/plugins/libOrthancDicomWeb.so" for folder in (OURS, Path("/"))]
    there = [plugin for plugin in plugins if plugin.is_file()]
    if server is None or not there:
        pytest.skip("no Orthanc with DICOMweb here: make orthanc")
    return Path(server), there[0]


def unpacked() -> dict[str, str]:
    """Where a server that was unpacked, not installed, finds its libraries and its dictionary."""
    found = {
        "LD_LIBRARY_PATH": OURS.glob("usr/lib/*-linux-gnu*"),
        "DCMDICTPATH": OURS.glob("usr/share/libdcmtk*/dicom.dic"),
    }
    return {name: ":".join(paths) for name, places in found.items() if (paths := [*map(str, places)])}


def isolated() -> list[str]:
    """The command before a command that gives it a network of its own."""
    for way in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
            return way
    pytest.skip("no private network can be made here (unshare -n), and Orthanc may listen on every interface")


def test_an_archive_gives_back_what_it_was_sent(tmp_path, data_root):
    (server, plugin), way = programs(), isolated()
    folder = real(data_root, tmp_path / "slide", placed=True)
    (tmp_path / "sent").mkdir()
    with closing(Database.open(f"sqlite:///{tmp_path / 'store.sqlite'}")) as database:
        library = Library(Store(database), Files(tmp_path / "files", 1), tmp_path)
        kept = library.add_path("slide")
        for tile in cut_up(300, margin=32):
            library.store.put_tile(kept.id, tile)
        export = Export(database, library.store.slide(kept.id), None, partial(library.check, kept))
        for kind in ("ann", "seg", "sr"):
            (tmp_path / "sent" / f"{kind}.dcm").write_bytes(b"".join(WRITERS[f"dicom-{kind}"](export)))
    shutil.copyfile(folder / "level-0-frames-0-30.dcm", tmp_path / "sent" / "wsm.dcm")
    command = [*way, sys.executable, "-m", "tests.archive", tmp_path / "sent", server, plugin]
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ | unpacked(), capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    for name in ("ann.dcm", "seg.dcm", "sr.dcm", "wsm.dcm"):
        assert (tmp_path / "sent" / "back" / name).read_bytes() == (tmp_path / "sent" / name).read_bytes(), name
