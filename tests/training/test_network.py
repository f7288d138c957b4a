"""The networks are those of the paper."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch

from training.describe import gflop, parameters
from training.network import Member, activate, build, compile_blocks, estimate_norms, forward


@pytest.mark.parametrize(("name", "count"), [("seresnext50", 31_622_843), ("seresnext101", 53_018_363)])
def test_the_papers_members_have_the_papers_parameters(name: str, count: int) -> None:
    assert parameters(build(name)) == count


def test_describe_prints_parameters_and_cost_as_json() -> None:
    command = [sys.executable, "-m", "training.describe", "seresnext50"]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert printed == {"name": "seresnext50", "parameters": 31_622_843, "gflop_256": 247.55}


SMALL = ["lite", "efficient-lite", "efficient-lite-full", "efficient-lite-refined", "efficient-lite-dense"]


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_takes_at_most_ten_gflop(name: str) -> None:
    assert gflop(build(name), 256) <= 10


@pytest.mark.parametrize("name", [*SMALL, "lite-narrow", "efficient-large"])
def test_maps_are_probabilities_at_full_size(name: str) -> None:
    network = build(name).eval()
    with torch.no_grad():
        np_prob, hv, type_prob = activate(network(torch.rand(2, 3, 64, 96)))
    assert (np_prob.shape, hv.shape, type_prob.shape) == ((2, 64, 96), (2, 2, 64, 96), (2, 7, 64, 96))
    assert 0 <= np_prob.min() <= np_prob.max() <= 1
    torch.testing.assert_close(type_prob.sum(1), torch.ones(2, 64, 96))


@pytest.mark.parametrize(("groups", "excite"), [(32, True), (1, False)])
def test_a_member_answers_at_full_size(groups: int, excite: bool) -> None:
    network = Member((1, 1, 1, 1), groups, excite, width=16).eval()
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 32, 40))
    assert [tuple(m.shape) for m in logits] == [(1, 2, 32, 40), (1, 2, 32, 40), (1, 7, 32, 40)]


def test_dropout_works_in_training_only() -> None:
    network = Member((1, 1, 1, 1), 32, True, width=16)
    patch = torch.rand(1, 3, 32, 32)
    network.eval()
    torch.testing.assert_close(network(patch).nc, network(patch).nc)
    network.train()
    assert not torch.allclose(network(patch).nc, network(patch).nc)


def test_an_unknown_network_is_refused_naming_those_there_are() -> None:
    with pytest.raises(KeyError, match="seresnext101"):
        build("resnet18")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch itself looks
@pytest.mark.parametrize("name", ["seresnext101-narrow", "hovernet-narrow", "lite-narrow", "efficient-lite"])
def test_compiled_blocks_answer_and_learn_as_plain_ones(name: str) -> None:
    torch.manual_seed(1)
    plain = build(name, dropout=0.0).train()
    compiled = copy.deepcopy(plain)
    compile_blocks(compiled, backend="eager")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    image = torch.rand(2, 3, 64, 64)
    for network in (plain, compiled):
        torch.stack([m.square().mean() for m in network(image)]).sum().backward()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_estimated_norms_answer_in_use_as_they_do_in_training() -> None:
    torch.manual_seed(1)
    network = build("lite-narrow", dropout=0.0)
    image = torch.randint(0, 256, (4, 3, 192, 192), dtype=torch.uint8)
    learning = forward(network.train(), image, bf16=False)
    estimate_norms(network, [image], bf16=False)
    assert not any(module.training for module in network.modules())
    for used, learnt in zip(forward(network, image, bf16=False), learning, strict=True):
        # A batch is divided by its variance over n, what is kept is that over n - 1.
        torch.testing.assert_close(used, learnt, rtol=0.02, atol=0.02)
