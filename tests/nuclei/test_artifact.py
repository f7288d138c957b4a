"""A model folder is whole and proves itself, or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.nuclei.artifact import Artifact, default_store, list_artifacts, load_artifact, open_folder, prove
from app.nuclei.errors import ArtifactDrift, ArtifactInvalid, DigestMismatch, UnknownModel
from app.nuclei.types import HoverMaps, UInt8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model in a store of its own."""
    shutil.copytree(default_store() / "karyon-lite", tmp_path / "karyon-lite")
    return load_artifact("karyon-lite", tmp_path).folder


def _edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Replay:
    """Answers with given maps."""

    def __init__(self, maps: HoverMaps, precision: str = "float32") -> None:
        self.maps, self.precision = maps, precision

    def predict(self, patches: UInt8) -> HoverMaps:
        return self.maps


def test_a_model_is_found_by_name_and_by_name_and_version(folder: Path) -> None:
    store = folder.parents[1]
    named = load_artifact(f"karyon-lite@{folder.name}", store)
    assert (named.folder, named.sha256) == (folder, load_artifact("karyon-lite", store).sha256)


def test_the_digest_of_one_member_is_its_files(folder: Path) -> None:
    artifact = open_folder(folder)
    assert artifact.sha256 == artifact.manifest.members[0].sha256


@pytest.mark.parametrize("reference", ["nothing", "karyon-lite@999", "../karyon-lite", "karyon-lite@..", "", "@1"])
def test_an_unknown_model_is_refused(folder: Path, reference: str) -> None:
    with pytest.raises(UnknownModel):
        load_artifact(reference, folder.parents[1])


def test_a_changed_weight_is_refused(folder: Path) -> None:
    graph = open_folder(folder).files[0]
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(DigestMismatch, match=graph.name):
        open_folder(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    with pytest.raises(DigestMismatch, match=r"golden\.npz is missing"):
        open_folder(folder)


def test_the_graphs_in_int8_are_verified_as_the_others_are(folder: Path) -> None:
    int8 = open_folder(folder).manifest.int8
    assert int8
    for part in (*int8.members, int8.golden):
        whole = (folder / part.file).read_bytes()
        (folder / part.file).write_bytes(whole[:-1])
        with pytest.raises(DigestMismatch, match=part.file):
            open_folder(folder)
        (folder / part.file).write_bytes(whole)
    assert open_folder(folder).manifest.int8 == int8


def test_a_model_may_be_without_graphs_in_int8(folder: Path) -> None:
    _edit(folder, lambda m: m.pop("int8"))
    assert open_folder(folder).manifest.int8 is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(schema=99), "schema"),
        (lambda m: m.pop("mpp"), "mpp"),
        (lambda m: m.update(members=[]), "no members"),
        (lambda m: m.update(classes=["cat"]), "classes"),
        (lambda m: m.update(margin=200), "margin"),
        (lambda m: m["profiles"].update(fast=["sideways"]), "unknown view"),
        (lambda m: m.update(qc={"beauty.low.warn": 0.5}), "unknown bound of the technical check"),
        (lambda m: m["int8"].update(members=[]), "has not one int8 graph a member"),
        (lambda m: m["int8"].pop("golden"), "golden"),
        (lambda m: m["profiles"].pop("accurate"), "profile"),
        (lambda m: m["calibration"].update(temperature=0), "temperature"),
        (lambda m: m["postprocess"].update(surplus=1), "surplus"),
    ],
)
def test_an_incomplete_manifest_is_refused_by_the_field(
    folder: Path, change: Callable[..., object], complaint: str
) -> None:
    _edit(folder, change)
    with pytest.raises(ArtifactInvalid, match=complaint):
        open_folder(folder)


def test_a_manifest_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ArtifactInvalid, match=r"manifest\.json"):
        open_folder(folder)


@pytest.mark.parametrize("off", [0.1, np.nan])
def test_an_engine_that_drifts_is_refused(folder: Path, off: float) -> None:
    artifact: Artifact = open_folder(folder)
    maps = artifact.golden[1]
    assert prove(Replay(maps), artifact) == 0
    with pytest.raises(ArtifactDrift):
        prove(Replay(HoverMaps(maps.np_prob + np.float32(off), maps.hv, maps.type_prob)), artifact)
    with pytest.raises(ArtifactDrift):
        prove(Replay(HoverMaps(maps.np_prob, maps.hv, maps.type_prob + np.float32(off))), artifact)


@pytest.mark.parametrize("off", [0.01, np.nan])
def test_an_engine_in_int8_is_judged_by_the_golden_maps_in_int8_and_on_average(folder: Path, off: float) -> None:
    artifact: Artifact = open_folder(folder)
    assert artifact.manifest.int8
    maps = artifact.test_pair(artifact.manifest.int8.golden)[1]
    one_pixel = maps.np_prob.copy()
    one_pixel[0, 0, 0] = 1 - one_pixel[0, 0, 0]
    engine = Replay(HoverMaps(one_pixel, maps.hv, maps.type_prob), "int8")
    assert 0 < prove(engine, artifact) < 1e-4
    with pytest.raises(ArtifactDrift, match="golden pair in int8 off by"):
        prove(Replay(HoverMaps(maps.np_prob + np.float32(off), maps.hv, maps.type_prob), "int8"), artifact)


def test_the_store_lists_versions_and_which_is_active(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("older"))
    listed = {path.name: active for path, active in list_artifacts(folder.parents[1])}
    assert listed == {folder.name: True, "older": False}


def test_a_store_that_is_not_there_lists_nothing(tmp_path: Path) -> None:
    assert list(list_artifacts(tmp_path / "none")) == []
