"""The authors' checkpoints become Karyon's, or are refused by name."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.convert import WrongCheckpoint, convert, read
from training.network import build

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state(golden_root: Path) -> State:
    """Random values under the authors' names."""
    shapes = json.loads((golden_root / "authors_checkpoint_keys.json").read_text())["seresnext50"]
    torch.manual_seed(0)
    return {n: torch.rand(s) if s else torch.tensor(3) for n, s in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_the_authors_fills_the_network(state: State, prefix: str) -> None:
    network = build("seresnext50")
    network.load_state_dict(convert({prefix + n: t for n, t in state.items()}, "seresnext50"))
    assert torch.equal(network.heads["nc"].conv.bias, state["decoder.tp.2.bias"])  # type: ignore[index, union-attr]
    found = network.state_dict()
    assert torch.equal(found["encoder.stages.2.5.se.fc1.weight"], state["backbone.layer3.5.se_module.fc1.weight"])
    assert torch.equal(found["decoder.level3.1.units.7.5.weight"], state["u3.1.units.7.5.weight"])


def test_the_deeper_member_converts_too(golden_root: Path) -> None:
    shapes = json.loads((golden_root / "authors_checkpoint_keys.json").read_text())["seresnext101"]
    converted = convert({n: torch.zeros(s) for n, s in shapes.items()}, "seresnext101")
    assert len(converted) == len(build("seresnext101").state_dict())


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda s: s.pop("conv_bot.weight"), "missing bridge.weight"),
        (lambda s: s.update(surplus=torch.zeros(1)), "not part of seresnext50: surplus"),
        (
            lambda s: s.update({"u1.0.weight": torch.zeros(64, 256, 1, 1)}),
            r"decoder.level1.weight is \(64, 256, 1, 1\)",
        ),
    ],
    ids=["missing", "surplus", "mis-shaped"],
)
def test_what_does_not_fit_is_named(state: State, spoil: Callable[[State], object], complaint: str) -> None:
    spoilt = dict(state)
    spoil(spoilt)
    with pytest.raises(WrongCheckpoint, match=complaint):
        convert(spoilt, "seresnext50")


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_state_dict_is_found_where_it_is_kept(tmp_path: Path, key: str | None) -> None:
    tensors = {"a": torch.ones(2)}
    torch.save({key: tensors, "epoch": 3} if key else tensors, tmp_path / "c.pt")
    assert torch.equal(read(tmp_path / "c.pt")["a"], tensors["a"])


class Evil:
    """Runs when it is unpickled without care."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(WrongCheckpoint, match=r"evil\.pt"):
        read(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
