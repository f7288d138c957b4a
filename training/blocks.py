"""The parts that the paper's networks are built of (PAPER.md 1)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class SqueezeExcitation(nn.Module):
    """Weigh channels by what the whole patch holds (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return cast(Tensor, x * weights.sigmoid())


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut: ResNet's, or SE-ResNeXt's with groups and squeeze-and-excitation."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int, groups: int, excite: bool) -> None:
        super().__init__()
        channels_out = width * self.expansion
        inner = width * 2 if groups > 1 else width  # 32 groups x width 4 doubles the 64 of ResNet
        self.conv1 = nn.Conv2d(channels_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.se = SqueezeExcitation(channels_out) if excite else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.se(self.bn3(self.conv3(y))) + self.shortcut(x))


class DenseBlock(nn.Module):
    """Units that each add 32 channels to what they saw (PAPER.md 1, "dense unit")."""

    def __init__(self, channels: int, units: int, growth: int = 32) -> None:
        super().__init__()
        self.units = nn.ModuleList(self._unit(channels + i * growth, 4 * growth, growth) for i in range(units))
        self.bn = nn.BatchNorm2d(channels + units * growth)

    @staticmethod
    def _unit(channels: int, inner: int, growth: int) -> nn.Sequential:
        return nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, growth, 3, padding=1, groups=4, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = torch.cat([x, unit(x)], 1)
        return functional.relu(self.bn(x))


class Head(nn.Module):
    """BN, ReLU and a 1x1 convolution with bias."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(functional.relu(self.bn(x))))
