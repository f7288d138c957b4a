"""How wrong is a prediction? The paper's six terms, each by its name (PAPER.md 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from training.network import Logits

PAPER_WEIGHTS: Mapping[str, float] = {
    "np_ce": 2.0,
    "np_dice": 2.0,
    "hv_mse": 2.0,
    "hv_msge": 2.0,
    "nc_ce": 3.0,
    "nc_dice": 1.0,
}

SOFT_WEIGHTS: Mapping[str, float] = {"soft_np": 4.0, "soft_hv": 4.0, "soft_nc": 4.0}
"""Of a student's terms; about as heavy together as the paper's six."""


def terms(
    logits: Logits, target: Mapping[str, Tensor], gamma: float = 0.0, class_weights: Sequence[float] = ()
) -> dict[str, Tensor]:
    """The six loss terms, unweighted.

    Args:
        logits: of a batch, any float type; computed in float32.
        target: `np` and `nc` (N, H, W) int64, `hv` (N, 2, H, W) float32; `weight` (N, H, W) float32, if it is there,
            is what each pixel counts for np and nc (Ronneberger et al., 2015).
        gamma: of the focal loss on classes (Lin et al., 2017); 0 is plain cross-entropy.
        class_weights: of the seven channels in the cross-entropy of classes; none are all 1.

    Returns:
        A scalar for each name in `PAPER_WEIGHTS`.
    """
    np_logits, hv, nc_logits = (x.float() for x in logits)
    hv = hv.tanh()
    nucleus, weight = target["np"].float(), target.get("weight")
    return {
        "np_ce": weighted_mean(functional.cross_entropy(np_logits, target["np"], reduction="none"), weight),
        "np_dice": dice(np_logits.softmax(1), target["np"], weight),
        "hv_mse": functional.mse_loss(hv, target["hv"]),
        "hv_msge": gradient_error(hv, target["hv"], nucleus),
        "nc_ce": class_entropy(nc_logits, target["nc"], gamma, class_weights, weight),
        "nc_dice": dice(nc_logits.softmax(1), target["nc"], weight),
    }


def soft_terms(logits: Logits, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How far a student is from its teacher's maps.

    Args:
        logits: of a batch.
        target: `soft_np` (N, H, W), `soft_hv` (N, 2, H, W), `soft_nc` (N, 7, H, W): the teacher's probabilities.

    Returns:
        A scalar for each name in `SOFT_WEIGHTS`: cross-entropy for np and nc, squared error for hv.
    """
    np_logits, hv, nc_logits = (x.float() for x in logits)
    nucleus, weight = target["soft_np"], target.get("weight")
    of_np = functional.cross_entropy(np_logits, torch.stack([1 - nucleus, nucleus], 1), reduction="none")
    of_nc = functional.cross_entropy(nc_logits, target["soft_nc"], reduction="none")
    return {
        "soft_np": weighted_mean(of_np, weight),
        "soft_hv": functional.mse_loss(hv.tanh(), target["soft_hv"]),
        "soft_nc": weighted_mean(of_nc, weight),
    }


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of (N, H, W); plain where there is no weight."""
    return values.mean() if weight is None else (values * weight).sum() / weight.sum()


def class_entropy(
    logits: Tensor, truth: Tensor, gamma: float, weights: Sequence[float], weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy of classes, (N, C, H, W) against (N, H, W); focal and weighted as an option.

    The paper found that neither helps, so both are off by default.
    """
    each = functional.cross_entropy(logits, truth, reduction="none")
    if gamma:
        each = each * (1 - torch.exp(-each)) ** gamma
    if weights:
        of_class = torch.tensor(weights, dtype=logits.dtype, device=logits.device)[truth]
        weight = of_class if weight is None else of_class * weight
    return weighted_mean(each, weight)


def total(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of every term; a term without a weight, or a weight without a term, is an error."""
    if set(parts) != set(weights):
        raise ValueError(f"terms and weights differ: {sorted(set(parts) ^ set(weights))}")
    return torch.stack([weights[name] * term for name, term in parts.items()]).sum()


def dice(probabilities: Tensor, truth: Tensor, weight: Tensor | None = None, smooth: float = 1e-3) -> Tensor:
    """1 - Dice of each channel over the whole batch, summed over channels (as HoVer-Net has it).

    Args:
        probabilities: (N, C, H, W), 0..1.
        truth: (N, H, W) int64, 0..C-1.
        weight: (N, H, W), what each pixel counts; 1 if not given.
        smooth: added above and below, so that a channel absent on both sides costs nothing.
    """
    hot = functional.one_hot(truth, probabilities.shape[1]).permute(0, 3, 1, 2).to(probabilities.dtype)
    counted = hot if weight is None else hot * weight[:, None]
    seen = probabilities if weight is None else probabilities * weight[:, None]
    overlap = (probabilities * counted).sum((0, 2, 3))
    sizes = seen.sum((0, 2, 3)) + counted.sum((0, 2, 3))
    return (1 - (2 * overlap + smooth) / (sizes + smooth)).sum()


def gradient_error(hv: Tensor, target: Tensor, nucleus: Tensor) -> Tensor:
    """Mean squared error of the gradients of `hv` in their own direction, inside nuclei only.

    Args:
        hv, target: (N, 2, H, W) float32.
        nucleus: (N, H, W) float32, 1 inside nuclei.
    """
    difference = functional.conv2d(hv - target, _kernels(hv), padding=2, groups=2)
    return (difference.square() * nucleus[:, None]).sum() / (2 * nucleus.sum() + 1e-8)


def _kernels(like: Tensor) -> Tensor:
    """(2, 1, 5, 5): h / (h^2 + v^2) for the horizontal channel, its transpose for the vertical one."""
    steps = torch.arange(-2, 3, dtype=like.dtype, device=like.device)
    vertical, horizontal = torch.meshgrid(steps, steps, indexing="ij")
    kernel = horizontal / (horizontal.square() + vertical.square() + 1e-15)
    return torch.stack([kernel, kernel.T])[:, None]
