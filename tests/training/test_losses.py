"""Each loss term, by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from training.losses import PAPER_WEIGHTS, dice, gradient_error, soft_terms, terms, total
from training.network import Logits


def _target(size: int = 8) -> dict[str, torch.Tensor]:
    nucleus = torch.zeros(1, size, size, dtype=torch.int64)
    nucleus[0, 2:6, 2:6] = 1
    return {"np": nucleus, "nc": nucleus * 3, "hv": torch.zeros(1, 2, size, size)}


def _perfect(target: dict[str, torch.Tensor]) -> Logits:
    hot = [torch.nn.functional.one_hot(target[k], n).permute(0, 3, 1, 2).float() for k, n in (("np", 2), ("nc", 7))]
    return Logits(hot[0] * 100, target["hv"], hot[1] * 100)


def test_a_perfect_prediction_costs_nothing() -> None:
    target = _target()
    parts = terms(_perfect(target), target)
    assert set(parts) == set(PAPER_WEIGHTS)
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in parts.values())


def test_not_knowing_costs_the_logarithm_of_the_choices() -> None:
    target = _target()
    parts = terms(Logits(torch.zeros(1, 2, 8, 8), target["hv"], torch.zeros(1, 7, 8, 8)), target)
    assert float(parts["np_ce"]) == pytest.approx(log(2))
    assert float(parts["nc_ce"]) == pytest.approx(log(7))


def test_dice_counts_each_channel() -> None:
    truth = torch.tensor([[[0, 1], [1, 1]]])
    probabilities = torch.full((1, 2, 2, 2), 0.5)
    # background: overlap .5, sizes 2 + 1; nucleus: overlap 1.5, sizes 2 + 3
    expected = (1 - 1.001 / 3.001) + (1 - 3.001 / 5.001)
    assert float(dice(probabilities, truth)) == pytest.approx(expected)


def test_a_pixel_of_weight_three_costs_what_three_pixels_do() -> None:
    torch.manual_seed(1)
    truth = torch.tensor([[[0, 1, 1, 1]]])
    logits = Logits(torch.randn(1, 2, 1, 4), torch.zeros(1, 2, 1, 4), torch.randn(1, 7, 1, 4))
    target = {"np": truth, "nc": truth * 3, "hv": torch.zeros(1, 2, 1, 4), "weight": torch.tensor([[[1.0, 3.0, 1, 1]]])}
    thrice = [0, 1, 1, 1, 2, 3]
    plain = {name: value[..., thrice] for name, value in target.items() if name != "weight"}
    found, expected = terms(logits, target), terms(Logits(*(m[..., thrice] for m in logits)), plain)
    for name in ("np_ce", "np_dice", "nc_ce", "nc_dice"):
        torch.testing.assert_close(found[name], expected[name])
    soft = {f"soft_{name}": torch.rand(1, *shape, 1, 4) for name, shape in (("np", ()), ("hv", (2,)), ("nc", (7,)))}
    plain = {name: value[..., thrice] for name, value in soft.items()}
    found = soft_terms(logits, soft | {"weight": target["weight"]})
    expected = soft_terms(Logits(*(m[..., thrice] for m in logits)), plain)
    for name in ("soft_np", "soft_nc"):
        torch.testing.assert_close(found[name], expected[name])


def test_hv_error_is_taken_after_tanh() -> None:
    target = _target()
    logits = Logits(torch.zeros(1, 2, 8, 8), torch.full((1, 2, 8, 8), 0.5), torch.zeros(1, 7, 8, 8))
    assert float(terms(logits, target)["hv_mse"]) == pytest.approx(torch.tanh(torch.tensor(0.5)).item() ** 2)


def test_a_slope_of_one_per_pixel_gives_the_kernels_own_weight() -> None:
    ramp = torch.arange(9.0).repeat(9, 1)
    hv = torch.stack([ramp, torch.zeros(9, 9)])[None]
    inside = torch.zeros(1, 9, 9)
    inside[0, 4, 4] = 1
    # sum of h * h / (h^2 + v^2) over the 5x5 kernel, squared, halved by the flat vertical channel
    weight = sum(h * h / (h * h + v * v) for h in (-2, -1, 1, 2) for v in range(-2, 3))
    assert float(gradient_error(hv, torch.zeros_like(hv), inside)) == pytest.approx(weight**2 / 2)


def test_gradients_outside_nuclei_do_not_count() -> None:
    noise = torch.rand(1, 2, 8, 8)
    assert float(gradient_error(noise, torch.zeros_like(noise), torch.zeros(1, 8, 8))) == 0


def test_the_total_is_the_weighted_sum_of_every_term() -> None:
    parts = {name: torch.tensor(float(i)) for i, name in enumerate(PAPER_WEIGHTS, 1)}
    assert float(total(parts, PAPER_WEIGHTS)) == 2 * 1 + 2 * 2 + 2 * 3 + 2 * 4 + 3 * 5 + 1 * 6


def test_no_term_can_vanish() -> None:
    parts = {name: torch.tensor(1.0) for name in PAPER_WEIGHTS}
    del parts["nc_dice"]
    with pytest.raises(ValueError, match="nc_dice"):
        total(parts, PAPER_WEIGHTS)
