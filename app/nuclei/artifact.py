"""Is this model folder whole, and is it what it says? `model_store/README.md` describes it field by field."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.nuclei.errors import ArtifactDrift, ArtifactInvalid, DigestMismatch, UnknownModel
from app.nuclei.hover import OperatingPoint
from app.nuclei.qc import DEFAULT_THRESHOLDS
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import Engine, HoverMaps, UInt8
from app.nuclei.views import BY_NAME, View

SCHEMA = 1
HALF_TOLERANCE = 0.03
"""How far a map may be off where networks calculate in float16; karyon-lite is off by 0.008 at its worst pixel."""
MIRRORED_TOLERANCE = 0.06
"""The same where mirror images lie around the golden patch, which alone move maps by up to 0.03."""


@dataclass(frozen=True, slots=True)
class MemberFile:
    """One network of a model: its encoder, its file, the file's digest and its number of trainable parameters."""

    encoder: str
    file: str
    sha256: str
    parameters: int


@dataclass(frozen=True, slots=True)
class GoldenFile:
    """The test pair of a model: its file, the file's digest, and how far a map may be off."""

    file: str
    sha256: str
    tolerance: float


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph beside a member's own, and its digest."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Int8Graphs:
    """The same networks as graphs that calculate in int8: one for each member, and the test pair that they give."""

    members: tuple[GraphFile, ...]
    golden: GoldenFile


@dataclass(frozen=True, slots=True)
class Manifest:
    """What gives the weights their meaning.

    Attributes:
        name, version: as requests name them.
        members: networks whose maps are averaged.
        classes: names of channels 1.. of the class map.
        mpp: um per pixel that the networks were trained at.
        patch_sizes: sides of the patches they take, ascending.
        margin: pixels distrusted at each inner side of a patch.
        postprocess: operating point of the separation.
        profiles: names of the views that are averaged, per profile.
        temperature: class probabilities are calibrated as p^(1/T), normalised.
        qc: bounds of the technical check in place of `app.nuclei.qc.DEFAULT_THRESHOLDS`.
        licence: of the weights.
        training: data, licence, split, revision of the code.
        tumour_burden_reason: why epithelium is not read as tumour; None if it may be.
        scores: per-class scores with intervals, as training.evaluate wrote them.
        golden: the test pair.
        int8: the members once more, for CPUs that calculate in int8; None if there are no such graphs.
    """

    name: str
    version: str
    members: tuple[MemberFile, ...]
    classes: tuple[str, ...]
    mpp: float
    patch_sizes: tuple[int, ...]
    margin: int
    postprocess: OperatingPoint
    profiles: Mapping[str, tuple[str, ...]]
    temperature: float
    qc: Mapping[str, float]
    licence: str
    training: Mapping[str, Any]
    tumour_burden_reason: str | None
    scores: Mapping[str, Any]
    golden: GoldenFile
    int8: Int8Graphs | None = None

    @property
    def training_data(self) -> str:
        """One line on what the weights were learnt from."""
        return str(self.training.get("data", "unknown"))

    def views(self, profile: str) -> tuple[View, ...]:
        """The views that a profile averages."""
        return tuple(BY_NAME[name] for name in self.profiles[profile])


@dataclass(frozen=True)
class Artifact:
    """A model folder whose every file is the one that its manifest names."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights: the file's own for one member, else that of the members' digests, a line each."""
        digests = [m.sha256 for m in self.manifest.members]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    @property
    def files(self) -> tuple[Path, ...]:
        """The members' graphs, in order."""
        return tuple(self.folder / m.file for m in self.manifest.members)

    @cached_property
    def golden(self) -> tuple[UInt8, HoverMaps]:
        """The test pair: patches (N, P, P, 3) uint8 and the maps that one view of all members gives for them."""
        return self.test_pair(self.manifest.golden)

    def test_pair(self, golden: GoldenFile) -> tuple[UInt8, HoverMaps]:
        """Patches and maps that lie in a file of the folder; `golden` keeps those of the members' own graphs."""
        with np.load(self.folder / golden.file) as content:
            maps = HoverMaps(*(content[k].astype(np.float32) for k in ("np_prob", "hv", "type_prob")))
            return content["patches"], maps


def default_store() -> Path:
    """`KARYON_MODEL_STORE`, else the source tree's `model_store/`, else what the wheel carries."""
    if named := os.environ.get("KARYON_MODEL_STORE"):
        return Path(named)
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "model_store"
    return beside if beside.is_dir() else package / "model_store"


def load_artifact(reference: str, store: Path | None = None) -> Artifact:
    """Find a model and verify every file of it.

    Args:
        reference: NAME (its active version) or NAME@VERSION.
        store: folder of models; `default_store()` if None.

    Raises:
        UnknownModel: no such name or version.
        ArtifactInvalid: the manifest is missing, unreadable or incomplete.
        DigestMismatch: a file is missing or not what the manifest says.
    """
    return open_folder(find_folder(reference, store))


def find_folder(reference: str, store: Path | None = None) -> Path:
    """The folder of a model; nothing in it is read.

    Raises:
        UnknownModel: no such name or version.
        ArtifactInvalid: no version of it is active.
    """
    store = default_store() if store is None else store
    name, said, version = reference.partition("@")
    if not _plain(name) or not (store / name).is_dir():
        raise UnknownModel(f"there is no model called {name!r}; there are {', '.join(_names(store)) or 'none'}")
    version = version if said else active_version(store, name)
    if not _plain(version) or not (store / name / version).is_dir():
        raise UnknownModel(f"model {name} has no version {version!r}; it has {', '.join(_versions(store / name))}")
    return store / name / version


def open_folder(folder: Path) -> Artifact:
    """Read and verify one model folder, wherever it lies.

    Raises:
        ArtifactInvalid, DigestMismatch: as `load_artifact`.
    """
    artifact = Artifact(folder, read_manifest(folder / "manifest.json"))
    manifest = artifact.manifest
    parts: list[MemberFile | GoldenFile | GraphFile] = [*manifest.members, manifest.golden]
    if manifest.int8:
        parts += [*manifest.int8.members, manifest.int8.golden]
    for file, digest in ((part.file, part.sha256) for part in parts):
        if not _plain(file) or not (folder / file).is_file():
            raise DigestMismatch(f"{manifest.name}@{manifest.version}: {file} is missing")
        if sha256_of(folder / file) != digest:
            raise DigestMismatch(f"{manifest.name}@{manifest.version}: {file} is not the file that the manifest names")
    return artifact


def list_artifacts(store: Path | None = None) -> Iterator[tuple[Path, bool]]:
    """Folders of all models and versions, and whether each is its name's active one."""
    store = default_store() if store is None else store
    for name in _names(store):
        active = active_version(store, name)
        for version in _versions(store / name):
            yield store / name / version, version == active


def active_version(store: Path, name: str) -> str:
    """The version that the text file `ACTIVE` names.

    Raises:
        ArtifactInvalid: there is no such file.
    """
    try:
        return (store / name / "ACTIVE").read_text().strip()
    except OSError as error:
        raise ArtifactInvalid(f"model {name} has no ACTIVE version") from error


def prove(engine: Engine, artifact: Artifact) -> float:
    """Let an engine show that it gives the golden maps, alone and, where patches run side by side, in every lane.

    One that calculates in half precision must give them in larger patches too: sums over whole maps grow with them, and
    float16 ends at 65504. One that calculates in int8 has golden maps of its own.

    Returns:
        The largest difference; in int8 the mean one (model_store/README.md says why).

    Raises:
        ArtifactDrift: it is off by more than the manifest, or half precision, allows.
    """
    precision = getattr(engine, "precision", "float32")
    if precision == "int8" and (int8 := artifact.manifest.int8):
        drift = _drift(engine, artifact.test_pair(int8.golden), HoverMaps.mean_from)
        _refuse_drift(artifact, drift, int8.golden.tolerance, "golden pair in int8")
        return drift
    half, allowed = precision == "float16", artifact.manifest.golden.tolerance
    drift = _drift(engine, artifact.golden, HoverMaps.furthest_from)
    _refuse_drift(artifact, drift, max(allowed, HALF_TOLERANCE) if half else allowed, "golden pair")
    for size in artifact.manifest.patch_sizes if half else ():
        if size > artifact.golden[0].shape[1]:
            off = _mirrored_drift(engine, artifact, size)
            _refuse_drift(artifact, off, MIRRORED_TOLERANCE, f"golden pair in a patch of {size} pixels in float16")
    return drift


def _drift(engine: Engine, pair: tuple[UInt8, HoverMaps], off: Callable[[HoverMaps, HoverMaps], float]) -> float:
    """How far an engine's maps are off those of a test pair, alone and in every lane."""
    patches, maps = pair
    drifts = [off(engine.predict(patches), maps)]
    if (abreast := getattr(engine, "abreast", 1)) > 1:
        each = engine.predict(np.repeat(patches[:1], abreast, axis=0))
        drifts += [off(each[i : i + 1], maps[:1]) for i in range(abreast)]
    return float(np.max(drifts))


def _mirrored_drift(engine: Engine, artifact: Artifact, size: int) -> float:
    """How far maps of the golden patch move when its mirror images fill a larger one, away from the seams."""
    patches, maps = artifact.golden
    side = patches.shape[1]
    beyond, near = (0, size - side), slice(0, side // 2)
    larger = np.pad(patches[:1], ((0, 0), beyond, beyond, (0, 0)), mode="symmetric")
    one = slice(0, 1)
    return engine.predict(larger)[one, near, near].furthest_from(maps[one, near, near])


def _refuse_drift(artifact: Artifact, drift: float, allowed: float, what: str) -> None:
    if not drift <= allowed:  # also catches NaN
        raise ArtifactDrift(f"{artifact.name}@{artifact.version}: {what} off by {drift:.1e}, allowed {allowed:.1e}")


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check that it is complete and consistent.

    Raises:
        ArtifactInvalid: the message names the field.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtifactInvalid(f"{path.parent.name} is no model folder: it holds no {path.name}") from error
    except (OSError, ValueError) as error:
        raise ArtifactInvalid(f"{path.name} cannot be read: {error.__class__.__name__}") from error
    try:
        manifest = _manifest(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactInvalid(f"manifest of {path.parent.parent.name}: {error.__class__.__name__}: {error}") from error
    _check(manifest)
    return manifest


def _manifest(content: Mapping[str, Any]) -> Manifest:
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema is {content['schema']}, this version reads {SCHEMA}")
    return Manifest(
        name=content["name"],
        version=content["version"],
        members=tuple(MemberFile(**m) for m in content["members"]),
        classes=tuple(content["classes"]),
        mpp=float(content["mpp"]),
        patch_sizes=tuple(sorted(content["patch_sizes"])),
        margin=int(content["margin"]),
        postprocess=OperatingPoint.from_dict(content["postprocess"]),
        profiles={name: tuple(views) for name, views in content["profiles"].items()},
        temperature=float(content["calibration"]["temperature"]),
        qc={name: float(bound) for name, bound in content.get("qc", {}).items()},
        licence=content["licence"],
        training=content["training"],
        tumour_burden_reason=content["tumour_burden_reason"],
        scores=content["scores"],
        golden=GoldenFile(**content["golden"]),
        int8=_int8(content["int8"]) if content.get("int8") else None,
    )


def _int8(content: Mapping[str, Any]) -> Int8Graphs:
    return Int8Graphs(tuple(GraphFile(**m) for m in content["members"]), GoldenFile(**content["golden"]))


def _check(manifest: Manifest) -> None:
    rules: list[tuple[Callable[[Manifest], bool], str]] = [
        (lambda m: bool(m.members), "has no members"),
        (lambda m: m.classes == NAMES, f"classes are not {', '.join(NAMES)}"),
        (lambda m: m.mpp > 0, "mpp is not above 0"),
        (lambda m: bool(m.patch_sizes) and 0 <= 2 * m.margin < m.patch_sizes[0], "margin leaves nothing of a patch"),
        (lambda m: {"fast", "accurate"} <= set(m.profiles), "lacks the profile fast or accurate"),
        (lambda m: all(v in BY_NAME for views in m.profiles.values() for v in views), "names an unknown view"),
        (lambda m: all(m.profiles.values()), "has a profile without views"),
        (lambda m: m.temperature > 0, "temperature is not above 0"),
        (lambda m: m.int8 is None or len(m.int8.members) == len(m.members), "has not one int8 graph a member"),
        (lambda m: m.qc.keys() <= DEFAULT_THRESHOLDS.keys(), "names an unknown bound of the technical check"),
    ]
    for holds, complaint in rules:
        if not holds(manifest):
            raise ArtifactInvalid(f"manifest of {manifest.name}@{manifest.version} {complaint}")


def _plain(name: str) -> bool:
    """A bare file name: requests name models, and a name must not lead out of the store."""
    return bool(name) and name == Path(name).name and name not in (".", "..")


def _names(store: Path) -> list[str]:
    return sorted(p.name for p in store.iterdir() if (p / "ACTIVE").is_file()) if store.is_dir() else []


def _versions(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if (p / "manifest.json").is_file())
