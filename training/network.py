"""The networks that Karyon trains: the paper's members, and a small one for CPUs.

Every network maps RGB in 0..1, (N, 3, H, W) with H and W multiples of 16, to `Logits`; `activate` makes probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from training.blocks import Bottleneck, DenseBlock, Head
from training.efficientnet import LITE2, EfficientLite, InvertedResidual
from training.lite import Lite, LiteBlock
from training.maps import NC_CHANNELS, Logits, activate

__all__ = ["NC_CHANNELS", "NETWORKS", "HoverNet", "Lite", "Logits", "Member", "activate", "build"]

SHAPES_OF_BLOCKS = 64
"""More than any network here has; torch stops compiling a function at 8 by default."""


class Encoder(nn.Module):
    """A ResNet without its first two strides, so that the finest of its four outputs is at full size (PAPER.md 1)."""

    def __init__(self, blocks: tuple[int, int, int, int], groups: int, excite: bool, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 1, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        stages, channels = [], width
        for depth, inner, stride in zip(blocks, (width, 2 * width, 4 * width, 8 * width), (1, 2, 2, 2), strict=True):
            stage = []
            for i in range(depth):
                stage.append(Bottleneck(channels, inner, stride if i == 0 else 1, groups, excite))
                channels = inner * Bottleneck.expansion
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class Decoder(nn.Module):
    """Back to full size in three levels; dropout before each skip is added (PAPER.md 1)."""

    def __init__(self, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        one, two, three = (width * Bottleneck.expansion * n for n in (1, 2, 4))
        wide, narrow, growth = three // 4, two // 4, width // 2
        self.dropout = nn.Dropout2d(dropout)
        self.level3 = nn.Sequential(
            nn.Conv2d(three, wide, 3, padding=1, bias=False),
            DenseBlock(wide, 8, growth),
            nn.Conv2d(wide + 8 * growth, two, 1, bias=False),
        )
        self.level2 = nn.Sequential(
            nn.Conv2d(two, narrow, 3, padding=1, bias=False),
            DenseBlock(narrow, 4, growth),
            nn.Conv2d(narrow + 4 * growth, one, 1, bias=False),
        )
        self.level1 = nn.Conv2d(one, one // 4, 3, padding=1, bias=False)

    def forward(self, bridge: Tensor, skips: list[Tensor]) -> Tensor:
        x = bridge
        for level, skip in zip((self.level3, self.level2, self.level1), reversed(skips), strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = level(self.dropout(x) + skip)
        return x


class Member(nn.Module):
    """One member of the paper's ensemble: encoder, bridge, one decoder shared by all maps, three heads."""

    def __init__(
        self, blocks: tuple[int, int, int, int], groups: int, excite: bool, width: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        one = width * Bottleneck.expansion
        self.encoder = Encoder(blocks, groups, excite, width)
        self.bridge = nn.Conv2d(8 * one, 4 * one, 1, bias=False)
        self.decoder = Decoder(width, dropout)
        self.heads = nn.ModuleDict({"np": Head(width, 2), "hv": Head(width, 2), "nc": Head(width, NC_CHANNELS)})

    def forward(self, x: Tensor) -> Logits:
        *skips, deepest = self.encoder(x)
        x = self.decoder(self.bridge(deepest), skips)
        return Logits(*(self.heads[name](x) for name in Logits._fields))


class HoverNet(nn.Module):
    """The baseline: HoVer-Net with its three decoders, one a map, on a ResNet (Graham et al., 2019, "fast" sizes)."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        one = width * Bottleneck.expansion
        self.encoder = Encoder(blocks, groups=1, excite=False, width=width)
        self.bridge = nn.Conv2d(8 * one, 4 * one, 1, bias=False)
        self.decoders = nn.ModuleDict({name: Decoder(width, dropout) for name in Logits._fields})
        sizes = {"np": 2, "hv": 2, "nc": NC_CHANNELS}
        self.heads = nn.ModuleDict({name: Head(width, size) for name, size in sizes.items()})

    def forward(self, x: Tensor) -> Logits:
        *skips, deepest = self.encoder(x)
        bridge = self.bridge(deepest)
        return Logits(*(self.heads[name](self.decoders[name](bridge, skips)) for name in Logits._fields))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "seresnext50": partial(Member, (3, 4, 6, 3), 32, True),
    "seresnext101": partial(Member, (3, 4, 23, 3), 32, True),
    "resnet50": partial(Member, (3, 4, 6, 3), 1, False),
    "resnet101": partial(Member, (3, 4, 23, 3), 1, False),
    "hovernet": partial(HoverNet, (3, 4, 6, 3)),
    "lite": Lite,
    "efficient-lite": partial(EfficientLite, 2),
    "efficient-lite-full": partial(EfficientLite, 1),
    "efficient-lite-refined": partial(EfficientLite, 1, refine=24),
    "efficient-lite-dense": partial(EfficientLite, 2, (160, 128, 96, 64), 32),
    # Too large to serve on a CPU: a teacher of those above.
    "efficient-large": partial(EfficientLite, 1, (256, 192, 128), refine=96, shapes=LITE2),
    # The same shapes, narrow: for trials of a recipe's path, where scores do not matter.
    "seresnext50-narrow": partial(Member, (1, 1, 1, 1), 8, True, width=8),
    "seresnext101-narrow": partial(Member, (1, 1, 3, 1), 8, True, width=8),
    "resnet50-narrow": partial(Member, (1, 1, 1, 1), 1, False, width=8),
    "resnet101-narrow": partial(Member, (1, 1, 3, 1), 1, False, width=8),
    "hovernet-narrow": partial(HoverNet, (1, 1, 1, 1), width=8),
    "lite-narrow": partial(Lite, (8, 16, 24, 32), (1, 1, 1, 1), (24, 16, 16)),
}


def build(name: str, dropout: float | None = None) -> nn.Module:
    """A fresh network by its name.

    Args:
        name: one of `NETWORKS`.
        dropout: share of channels dropped while training; the network's own if None.

    Raises:
        KeyError: no such network; the message lists those there are.
    """
    if name not in NETWORKS:
        raise KeyError(f"no network called {name!r}; there are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name]() if dropout is None else NETWORKS[name](dropout=dropout)


def compile_blocks(network: nn.Module, backend: str = "inductor") -> None:
    """Let torch compile every block of a network, in place; names and weights stay as they are.

    Blocks of one shape share what was compiled, so a network of a hundred layers takes no longer than one of fifty;
    what is gained lies in the steps between convolutions, which move memory and little else.

    Args:
        network: of blocks that `training.blocks`, `training.lite` or `training.efficientnet` has.
        backend: what compiles, see `torch.compile`.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, SHAPES_OF_BLOCKS)
    for block in network.modules():
        if isinstance(block, (Bottleneck, DenseBlock, InvertedResidual, LiteBlock)):
            block.forward = torch.compile(block.forward, dynamic=False, backend=backend)  # type: ignore[method-assign]


def forward(network: nn.Module, image: Tensor, bf16: bool) -> Logits:
    """Logits of (N, 3, H, W) uint8 RGB, in float32 or, where torch thinks it safe, in bfloat16."""
    scaled = image.float().div(255).contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        return Logits(*network(scaled))


@torch.no_grad()
def estimate_norms(network: nn.Module, batches: Iterable[Tensor], bf16: bool) -> None:
    """Give every batch norm the mean statistics of some batches, in place ("precise" batch norm, Wu and Johnson, 2021).

    For averaged weights: statistics averaged beside them lag behind, the more so the faster the weights still move.

    Args:
        network: left in evaluation mode; nothing is dropped while it is looked at.
        batches: (N, 3, P, P) uint8 RGB on the network's device, as large as those that were learnt from.
        bf16: calculate as the recipe does.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        # Plain, by itself: norms that are synchronised would wait for processes that do not take part.
        norm.forward = partial(_BatchNorm.forward, norm.train())  # type: ignore[method-assign]
    for batch in batches:
        forward(network, batch, bf16)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        del norm.forward
        norm.eval()
