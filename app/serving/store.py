"""How does a model folder get into the store so that no half-copied or unproven model is ever served?"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.nuclei.artifact import Artifact, default_store, find_folder, open_folder, prove
from app.nuclei.errors import ArtifactInvalid, UnknownModel
from app.nuclei.types import Engine

CHUNK = 2**20
OpenEngine = Callable[[Artifact], Engine]
Progress = Callable[[int], object]


def require_model(reference: str, store: Path | None) -> None:
    """Find the model that a service is to start with, without reading it: one that is there may still be refused.

    Args:
        reference: NAME or NAME@VERSION, as `KARYON_MODEL` says.
        store: folder of models, as `KARYON_MODEL_STORE` says.

    Raises:
        UnknownModel, ArtifactInvalid: it is not there; the message names the setting.
    """
    store = store or default_store()
    if not store.is_dir():
        raise UnknownModel(f"KARYON_MODEL_STORE: there is no folder {store}")
    try:
        find_folder(reference, store)
    except UnknownModel as error:
        raise UnknownModel(f"KARYON_MODEL: {error} (in {store})") from None


def import_model(folder: Path, store: Path, open_engine: OpenEngine, activate: bool, progress: Progress) -> Artifact:
    """Verify a model folder, copy it into the store, verify the copy, and only then let it appear under its name.

    Args:
        folder: holds manifest.json and the files that it names.
        store: folder of models; made if absent.
        open_engine: runs the model, which must give its golden maps.
        activate: make this version the one that its name stands for; the first version of a name always is.
        progress: told the bytes of each chunk copied.

    Raises:
        ArtifactError: the folder is not whole, does not give its golden maps, or its version is there already.
        EngineUnavailable: it cannot be run here.
    """
    artifact = open_folder(folder)
    prove(open_engine(artifact), artifact)
    home, target = store / artifact.name, store / artifact.name / artifact.version
    if target.exists():
        raise ArtifactInvalid(f"{artifact.name}@{artifact.version} is in the store already; a version never changes")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".importing-", dir=home) as scratch:
        copy = Path(scratch) / artifact.version
        copy_folder(folder, copy, progress)
        open_folder(copy)
        copy.rename(target)
    if activate or not (home / "ACTIVE").exists():
        set_active(store, artifact.name, artifact.version)
    return open_folder(target)


def set_active(store: Path, name: str, version: str) -> None:
    """Let a name stand for a version; a reader sees the old one or the new one, never half a file."""
    with tempfile.NamedTemporaryFile("w", dir=store / name, prefix=".active-", delete=False) as file:
        file.write(f"{version}\n")
        os.fchmod(file.fileno(), 0o644)
    os.replace(file.name, store / name / "ACTIVE")


def copy_folder(source: Path, target: Path, progress: Progress) -> None:
    """Copy the files of a folder (no folders inside it, no links followed out of it)."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as old, (target / path.name).open("wb") as new:
            while chunk := old.read(CHUNK):
                new.write(chunk)
                progress(len(chunk))
        shutil.copymode(path, target / path.name)
