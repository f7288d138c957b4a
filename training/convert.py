"""How does a checkpoint of the method's authors become one of Karyon's?

    python -m training.convert CHECKPOINT --member seresnext50 -o member.pt

Entries are renamed by a table; any that is missing, left over or of another shape is named and refused. Nothing in
the file is run (`weights_only`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.network import build

MEMBERS = ("seresnext50", "seresnext101")
RENAMED: tuple[tuple[str, str], ...] = (
    (r"backbone\.layer0\.conv1\.", "encoder.stem.0."),
    (r"backbone\.layer0\.bn1\.", "encoder.stem.1."),
    (r"backbone\.layer(?P<stage>[1-4])\.", "encoder.stages.{stage}."),
    (r"conv_bot\.", "bridge."),
    (r"u(?P<level>[23])\.0\.", "decoder.level{level}.0."),
    (r"u(?P<level>[23])\.1\.units\.", "decoder.level{level}.1.units."),
    (r"u(?P<level>[23])\.1\.blk_bna\.0\.", "decoder.level{level}.1.bn."),
    (r"u(?P<level>[23])\.2\.", "decoder.level{level}.2."),
    (r"u1\.0\.", "decoder.level1."),
    (r"decoder\.(?P<head>np|hv|tp)\.0\.", "heads.{head}.bn."),
    (r"decoder\.(?P<head>np|hv|tp)\.2\.", "heads.{head}.conv."),
)
UNUSED = ("backbone.last_linear.", "upsample2x.unpool_mat")
"""A 1000-way classifier that nothing calls, and a constant of ones."""


class WrongCheckpoint(ValueError):
    """A checkpoint does not fit the network; the message names what is missing, left over or mis-shaped."""


def convert(state: Mapping[str, Tensor], member: str) -> dict[str, Tensor]:
    """Rename a state dict of the authors' network to Karyon's, and check it entry by entry.

    Args:
        state: names and tensors, with or without the prefix `module.`.
        member: "seresnext50" or "seresnext101".

    Raises:
        WrongCheckpoint: something does not fit.
    """
    named = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    renamed = {rename(n): t for n, t in named.items() if not n.startswith(UNUSED)}
    wanted = {name: tensor.shape for name, tensor in build(member).state_dict().items()}
    complaints = [f"missing {n}" for n in wanted if n not in renamed]
    complaints += [f"not part of {member}: {n}" for n in renamed if n not in wanted]
    complaints += [
        f"{n} is {tuple(t.shape)}, should be {tuple(wanted[n])}"
        for n, t in renamed.items()
        if n in wanted and t.shape != wanted[n]
    ]
    if complaints:
        more = f" and {len(complaints) - 10} more" if len(complaints) > 10 else ""
        raise WrongCheckpoint("; ".join(complaints[:10]) + more)
    return renamed


def rename(name: str) -> str:
    """Karyon's name for an entry of the authors'; unknown names stay as they are."""
    for pattern, replacement in RENAMED:
        if found := re.match(pattern, name):
            parts = found.groupdict()
            if "stage" in parts:
                parts["stage"] = str(int(parts["stage"]) - 1)
            if "head" in parts:
                parts["head"] = parts["head"].replace("tp", "nc")
            rest = name[found.end() :]
            return replacement.format(**parts) + rest.replace("se_module.", "se.").replace("downsample.", "shortcut.")
    return name


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, whatever the key it keeps them under.

    Raises:
        WrongCheckpoint: it is no checkpoint, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and attribute errors alike
        raise WrongCheckpoint(f"{path.name} is no checkpoint that can be read safely: {error}") from error
    for key in ("state_dict", "model", "network"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WrongCheckpoint(f"{path.name} holds no state dict of tensors")
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--member", choices=MEMBERS, required=True)
    parser.add_argument("-o", "--out", type=Path, help="by default beside the checkpoint")
    arguments = parser.parse_args()
    out = arguments.out or arguments.checkpoint.with_suffix(".karyon.pt")
    try:
        network = convert(read(arguments.checkpoint), arguments.member)
    except WrongCheckpoint as error:
        raise SystemExit(str(error)) from error
    torch.save({"network": network, "name": arguments.member}, out)
    print(out)


if __name__ == "__main__":
    main()
