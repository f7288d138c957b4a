"""What can a CPU run that has seen a million photographs? EfficientNet-Lite as encoder of a small network.

The shapes are those of EfficientNet-Lite0 and, for a network that teaches, -Lite2 (Tan and Le, 2019, without
squeeze-and-excitation and with ReLU6), so that their published ImageNet weights fit; the last stage and the classifier
are left out. A stem without stride keeps every
feature at twice the resolution that it was learnt at, as the paper's members do with theirs (PAPER.md 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.lite import LiteBlock
from training.maps import NC_CHANNELS, Logits


class Stage(NamedTuple):
    """Inverted residual blocks of one kind: how many, kernel, stride of the first, expansion, channels."""

    depth: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM = 32
LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
)
LITE2 = (  # the same, 1.1 times as wide and 1.2 times as deep; its first stage is not deeper
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
)


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel alone, narrow by 1x1; a shortcut where shapes allow it."""

    def __init__(self, channels_in: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = channels_in * stage.expansion
        self.expand: nn.Module = nn.Identity()
        if stage.expansion > 1:
            self.expand = nn.Sequential(_convolution(channels_in, inner, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(_convolution(inner, inner, stage.kernel, stride, inner), nn.ReLU6())
        self.project = _convolution(inner, stage.channels, 1)
        self.same = stride == 1 and channels_in == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.project(self.depthwise(self.expand(x))))
        return x + y if self.same else y


class EfficientEncoder(nn.Module):
    """EfficientNet-Lite without its head; the last features of each size, finest first.

    Args:
        stem_stride: 2 as published, or 1 for features at twice the resolution and four times the cost.
        shapes: of its stages.
    """

    def __init__(self, stem_stride: int, shapes: Sequence[Stage] = LITE0) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, STEM, 3, stem_stride), nn.ReLU6())
        stages, channels = [], STEM
        for stage in shapes:
            blocks = []
            for i in range(stage.depth):
                blocks.append(InvertedResidual(channels, stage, stage.stride if i == 0 else 1))
                channels = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem((x - 127 / 255) * (255 / 128))  # the range that the published weights expect
        outputs: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            if outputs and outputs[-1].shape[2:] == x.shape[2:]:
                outputs.pop()
            outputs.append(x)
        return outputs


class EfficientLite(nn.Module):
    """A U-shape on an encoder that may come with ImageNet weights; answers at full size by sub-pixel heads.

    Args:
        stem_stride: of the encoder.
        decoder: channels of the levels on the way up; the last level is at half the image's size.
        detail: channels of a dense branch that sees the image itself at half size, each 2x2 block of it as twelve
            channels; 0: the last level sees those blocks as they are. Only for a stem with stride.
        refine: channels of a level at the image's own size, whose heads say where nuclei are, so that borders are drawn
            from the finest features, and add to what a sub-pixel head says of classes; 0: none. Only for a stem
            without stride.
        dropout: share of channels of the deepest features dropped while training.
        shapes: of the encoder's stages.
    """

    def __init__(
        self,
        stem_stride: int = 1,
        decoder: tuple[int, ...] = (112, 80, 64, 48),
        detail: int = 0,
        refine: int = 0,
        dropout: float = 0.1,
        shapes: Sequence[Stage] = LITE0,
    ) -> None:
        super().__init__()
        self.encoder = EfficientEncoder(stem_stride, shapes)
        self.full = stem_stride == 1
        self.detail: nn.Module = nn.Identity()
        if detail:
            stem = nn.Sequential(_convolution(12, detail, 3), nn.ReLU())
            self.detail = nn.Sequential(stem, LiteBlock(detail, detail))
        finest, half, quarter, _, eighth, deepest = (stage.channels for stage in shapes)
        skips = [eighth, quarter, half + 4 * finest] if self.full else [eighth, quarter, half, finest + (detail or 12)]
        self.dropout = nn.Dropout2d(dropout)
        widths = (deepest, *decoder[len(decoder) - len(skips) :])
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in pairwise(widths))
        self.levels = nn.ModuleList(LiteBlock(w + s, w) for w, s in zip(widths[1:], skips, strict=True))
        sizes = {"np": 2, "hv": 2, "nc": NC_CHANNELS}
        sub_pixel = {name: size for name, size in sizes.items() if not refine or name == "nc"}
        self.heads = nn.ModuleDict({name: nn.Conv2d(widths[-1], 4 * size, 1) for name, size in sub_pixel.items()})
        self.refine: nn.Module | None = None
        if refine:
            self.spread = nn.Conv2d(widths[-1], 4 * finest, 1, bias=False)
            self.refine = LiteBlock(2 * finest, refine)
            self.fine = nn.ModuleDict({name: nn.Conv2d(refine, size, 1) for name, size in sizes.items()})

    def forward(self, x: Tensor) -> Logits:
        finest, *skips, y = self.encoder(x)
        # Nothing of the image is thrown away: what is finer than half size enters there, block by block.
        if self.full:
            skips[0] = torch.cat([skips[0], functional.pixel_unshuffle(finest, 2)], 1)
        else:
            skips.insert(0, torch.cat([finest, self.detail(functional.pixel_unshuffle(x, 2))], 1))
        y = self.dropout(y)
        for narrow, level, skip in zip(self.narrow, self.levels, reversed(skips), strict=True):
            y = level(torch.cat([functional.interpolate(narrow(y), scale_factor=2.0, mode="nearest"), skip], 1))
        logits = {name: functional.pixel_shuffle(head(y), 2) for name, head in self.heads.items()}
        if self.refine is not None:
            y = self.refine(torch.cat([functional.pixel_shuffle(self.spread(y), 2), finest], 1))
            logits = {name: head(y) + logits.get(name, 0) for name, head in self.fine.items()}
        return Logits(**logits)


class Depthwise(nn.Conv2d):
    """A filter for each channel alone; on a CPU always in float32, where learning it takes a third of the time of
    bfloat16 (oneDNN has no fast backward pass for it there).
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    kind = Depthwise if groups > 1 else nn.Conv2d
    return nn.Sequential(
        kind(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=1e-3),  # as the weights were learnt
    )
