"""What every network says: logits of three maps, and how they become probabilities."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from app.nuclei.taxonomy import CLASSES

NC_CHANNELS = 1 + len(CLASSES)


class Logits(NamedTuple):
    """What the heads say before their activations.

    Attributes:
        np: (N, 2, H, W), background and nucleus.
        hv: (N, 2, H, W), horizontal (right positive) and vertical (down positive), before tanh.
        nc: (N, 7, H, W), background and the classes of the taxonomy.
    """

    np: Tensor
    hv: Tensor
    nc: Tensor


def activate(logits: Logits) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of the maps (PAPER.md 1): np_prob (N, H, W), hv (N, 2, H, W), type_prob (N, 7, H, W)."""
    return logits.np.softmax(1)[:, 1], logits.hv.tanh(), logits.nc.softmax(1)
