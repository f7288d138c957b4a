"""The small network: what a CPU can run in a twentieth of a second."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.blocks import SqueezeExcitation
from training.maps import NC_CHANNELS, Logits


class LiteBlock(nn.Module):
    """Two 3x3 convolutions with squeeze-and-excitation and a shortcut; dense convolutions, as CPUs run them best."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.se = SqueezeExcitation(channels_out, reduction=8)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels_out:
            pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(
                pool, nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.se(self.bn2(self.conv2(y))) + self.shortcut(x))


class Lite(nn.Module):
    """A U-shape that works from half size down and answers at full size by sub-pixel heads.

    Full-size features take three quarters of a member's cost. Here each 2x2 block of the image enters as twelve
    channels and each feature of the last level answers for its 2x2 block, so nothing is thrown away.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 192),
        depths: tuple[int, ...] = (1, 2, 3, 3),
        decoder: tuple[int, ...] = (96, 64, 48),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages, channels = [], widths[0]
        for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = LiteBlock(channels, width, stride=2 if level else 1)
            stages.append(nn.Sequential(first, *(LiteBlock(width, width) for _ in range(depth - 1))))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.dropout = nn.Dropout2d(dropout)
        self.narrow, self.levels = nn.ModuleList(), nn.ModuleList()
        for width, skip in zip(decoder, reversed(widths[:-1]), strict=True):
            self.narrow.append(nn.Conv2d(channels, width, 1, bias=False))
            self.levels.append(LiteBlock(width + skip, width))
            channels = width
        sizes = {"np": 2, "hv": 2, "nc": NC_CHANNELS}
        self.heads = nn.ModuleDict({name: nn.Conv2d(channels, 4 * size, 1) for name, size in sizes.items()})

    def forward(self, x: Tensor) -> Logits:
        x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        x = self.dropout(skips.pop())
        for narrow, level, skip in zip(self.narrow, self.levels, reversed(skips), strict=True):
            up = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = level(torch.cat([up, skip], 1))
        return Logits(*(functional.pixel_shuffle(self.heads[name](x), 2) for name in Logits._fields))
