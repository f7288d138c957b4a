"""How large is a network, and what does one view cost?

python -m training.describe seresnext50
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor, nn

from training.network import NETWORKS, build


def parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def gflop(network: nn.Module, size: int) -> float:
    """GFLOP of the convolutions for one view of size x size pixels, two per multiply-add."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += 2 * output.numel() * module.weight[0].numel()

    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return total / 1e9


def describe(name: str) -> dict[str, Any]:
    """Parameters and cost of a network by its name."""
    network = build(name)
    return {"name": name, "parameters": parameters(network), "gflop_256": round(gflop(network, 256), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=sorted(NETWORKS))
    print(json.dumps(describe(parser.parse_args().name)))


if __name__ == "__main__":
    main()
