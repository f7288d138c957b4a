"""A run comes home in parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from training.carry import pack, unpack
from training.config import RunConfig
from training.network import build
from training.record import record_of
from training.storage import quantise


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with random weights."""
    folder = tmp_path / "there" / "some.run"
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    torch.save({"network": build("lite-narrow").state_dict(), "name": "lite-narrow"}, folder / "best.pt")
    (folder / "config.json").write_text(RunConfig(name="some.run", network="lite-narrow").model_dump_json())
    (folder / "metrics.csv").write_text("epoch,minutes\n0,4.5\n")
    (folder / "operating_point.json").write_text("{}")
    (folder / "checkpoint.pt").write_bytes(b"stays")
    return folder


def _weights(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(run / "best.pt", weights_only=True)["network"]
    return content


def test_a_run_comes_home_with_its_texts_and_weights_within_half_a_step_of_int8(run: Path, tmp_path: Path) -> None:
    parts = pack(run, tmp_path / "parts", 40_000)
    assert len(parts) > 1
    assert all(part.stat().st_size <= 40_000 for part in parts)
    (home,) = unpack(tmp_path / "parts", tmp_path / "here")
    assert record_of(home) == record_of(run)
    assert record_of(home)["minutes"] == 4.5
    assert (home / "operating_point.json").read_text() == "{}"
    assert not (home / "checkpoint.pt").exists()
    there, here = _weights(run), _weights(home)
    assert there.keys() == here.keys()
    for name, weight in there.items():
        step = quantise(weight.numpy())[1].max() if weight.dim() == 4 else 0.0
        assert (weight - here[name]).abs().max() <= step / 2 * 1.001, name


def test_what_came_home_is_rounded_to_itself(run: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "parts", 1_000_000)
    (home,) = unpack(tmp_path / "parts", tmp_path / "here")
    pack(home, tmp_path / "again", 1_000_000)
    (twice,) = unpack(tmp_path / "again", tmp_path / "there-again")
    assert all(torch.equal(weight, _weights(twice)[name]) for name, weight in _weights(home).items())


def test_a_missing_part_is_named(run: Path, tmp_path: Path) -> None:
    parts = pack(run, tmp_path / "parts", 40_000)
    parts[1].unlink()
    with pytest.raises(ValueError, match=rf"lacks {parts[1].name}"):
        unpack(tmp_path / "parts", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_folder_without_parts_and_a_run_that_is_there_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no part"):
        unpack(tmp_path, tmp_path / "here")
    pack(run, tmp_path / "parts", 1_000_000)
    with pytest.raises(FileExistsError, match=r"some\.run"):
        unpack(tmp_path / "parts", run.parent)


def test_a_run_without_weights_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.pt"):
        pack(tmp_path, tmp_path / "parts", 1_000_000)


def test_no_run_is_made_while_a_part_of_another_is_missing(run: Path, tmp_path: Path) -> None:
    other = run.with_name("other")
    shutil.copytree(run, other)
    pack(run, tmp_path / "parts", 40_000)
    late = pack(other, tmp_path / "parts", 40_000)[0]
    late.rename(tmp_path / "late")
    with pytest.raises(ValueError, match="lacks other"):
        unpack(tmp_path / "parts", tmp_path / "here")
    (tmp_path / "late").rename(late)
    assert [home.name for home in unpack(tmp_path / "parts", tmp_path / "here")] == ["other", "some.run"]


def test_parts_of_two_packings_and_spoilt_parts_are_refused(run: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "parts", 40_000)
    content = torch.load(run / "best.pt", weights_only=True)
    next(iter(content["network"].values())).add_(1)
    torch.save(content, run / "best.pt")
    for part in pack(run, tmp_path / "later", 40_000):
        shutil.copy(part, tmp_path / "parts")
    with pytest.raises(ValueError, match="more than one packing of some"):
        unpack(tmp_path / "parts", tmp_path / "here")
    spoilt = tmp_path / "spoilt"
    first = pack(run, spoilt, 40_000)[0]
    first.write_bytes(first.read_bytes()[::-1])
    with pytest.raises(ValueError, match="not those that were packed"):
        unpack(spoilt, tmp_path / "here")
