"""How does an encoder that was learnt elsewhere come in? By its names: torchvision's, timm's or Cadene's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

RENAMED: tuple[tuple[str, str], ...] = (
    (r"^(?:layer0\.)?conv1\.", "stem.0."),
    (r"^(?:layer0\.)?bn1\.", "stem.1."),
    (r"^layer([1-4])\.", r"stages.\1."),
    (r"\.se_module\.", ".se."),
    (r"\.downsample\.", ".shortcut."),
)
CLASSIFIERS = ("fc.", "last_linear.", "head.", "classifier.")


class WrongWeights(ValueError):
    """A weights file does not fit the encoder; the message names what is missing, left over or mis-shaped."""


def load_encoder(network: nn.Module, path: Path) -> None:
    """Fill a member's encoder from a file of ImageNet weights.

    Args:
        network: a `Member`.
        path: state dict of `torch.save`, under the names of torchvision (`conv1.weight`, `layer1.0.downsample.0`),
            timm (the same, `layer1.0.se.fc1`) or Cadene (`layer0.conv1.weight`, `layer1.0.se_module.fc1`); a
            classifier is left out.

    Raises:
        WrongWeights: something does not fit, or the network has no such encoder.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise WrongWeights("this network has no encoder that weights are published for")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and attribute errors alike
        raise WrongWeights(f"{path.name} cannot be read safely: {error}") from error
    renamed = rename(content.get("state_dict", content))
    wanted = encoder.state_dict()
    complaints = [f"missing {n}" for n in wanted if n not in renamed and not n.endswith("num_batches_tracked")]
    complaints += [f"not part of the encoder: {n}" for n in renamed if n not in wanted]
    complaints += [
        f"{n} is {tuple(t.shape)}, should be {tuple(wanted[n].shape)}"
        for n, t in renamed.items()
        if n in wanted and t.shape != wanted[n].shape
    ]
    if complaints:
        more = f" and {len(complaints) - 10} more" if len(complaints) > 10 else ""
        raise WrongWeights(f"{path.name}: " + "; ".join(complaints[:10]) + more)
    encoder.load_state_dict({**wanted, **renamed})


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries under Karyon's names, without the classifier."""
    result = {}
    for published, tensor in state.items():
        name = published.removeprefix("module.")
        if not name.startswith(CLASSIFIERS):
            result[_renamed(name)] = tensor
    return result


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", name)  # ours count from 0
