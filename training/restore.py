"""How does a model folder become a run again, to train on from, or to export with others? Its graphs give the weights.

    python -m training.restore karyon-lite runs/karyon-lite-2

writes a run folder a member (`runs/karyon-lite-2`, further ones with `-2`, `-3` behind it): best.pt, config.json,
operating point, temperature, and record.json, what the model's manifest says of the run. `begin_from` in a config then
names best.pt, and `training.export` takes the folder as any other.

A graph holds no batch norms: the exporter multiplied them into the convolutions before them. They come back with the
mean and variance that the convolutions have on training crops, and with the scale and shift that leave the network's
answers as they are. Weights that were stored as int8 are what the graph expands them to.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from app.nuclei import load_artifact
from app.nuclei.artifact import Artifact, default_store
from app.nuclei.types import Float32
from training.config import RunConfig
from training.data import lizard
from training.deployed import Deployed
from training.export import difference
from training.network import build
from training.record import FIELDS, RECORD, runs_of
from training.state import replace
from training.train import random_crops, split

CROPS = 192
BATCH = 8
PREFIX = "network."
OF_A_NORM = ("weight", "bias", "running_mean", "running_var")
FOLDED = "_bias"
"""The exporter's name for the bias that a norm left: that of the weight, and this."""


class NotRestored(ValueError):
    """A graph does not hold the weights of the network that its manifest names."""


def weights_of(graph: Path) -> dict[str, Float32]:
    """Every float tensor of a graph by its name without `network.`, those stored as int8 expanded."""
    content = onnx.load(graph).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in content.initializer}
    for node in (node for node in content.node if node.op_type == "BatchNormalization"):
        stored = _shared(node.input[1:], stored) | stored
    expanded = {
        name.removesuffix("_int8"): codes.astype(np.float32) * stored[name.removesuffix("_int8") + "_scale"]
        for name, codes in stored.items()
        if name.endswith("_int8")
    }
    named = {name.removeprefix(PREFIX): array for name, array in (stored | expanded).items()}
    return {name: array for name, array in named.items() if array.dtype == np.float32}


def _shared(given: Sequence[str], stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a norm is given, under its own names too: the exporter keeps equal tensors of several norms once."""
    owners = {name.rpartition(".")[0] for name in given}
    return {f"{own}.{key}": stored[name] for own in owners for key, name in zip(OF_A_NORM, given, strict=True)}


def restore(name: str, weights: Mapping[str, Float32], crops: Tensor) -> nn.Module:
    """A network with the weights of a graph.

    Args:
        name: of the network, see `training.network.NETWORKS`.
        weights: see `weights_of`.
        crops: (N, 3, P, P) float32 in 0..1, for the norms' statistics.

    Raises:
        NotRestored: a weight is missing or of another shape.
    """
    network = build(name).eval()
    folded = fill(network, weights, convolutions_before(network, crops[:1]))
    give_statistics(network, folded, crops)
    return network


def convolutions_before(network: nn.Module, crops: Tensor) -> dict[str, str]:
    """The convolution whose output each norm is given, by the norm's name; norms after anything else are left out."""
    found: dict[str, str] = {}
    outputs: list[tuple[Tensor, str]] = []

    def given(norm: str, value: Tensor) -> None:
        found.update((norm, convolution) for out, convolution in outputs if out is value)

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda _, __, out, name=name: outputs.append((out, name))))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(lambda _, args, name=name: given(name, args[0])))
    with torch.no_grad():
        network(crops)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def fill(network: nn.Module, weights: Mapping[str, Float32], before: Mapping[str, str]) -> list[nn.BatchNorm2d]:
    """Put every weight of a graph into a network; norms that the graph does not hold add what they had come to.

    Returns:
        Those norms: mean 0 and variance 1 until `give_statistics`.

    Raises:
        NotRestored: see `restore`.
    """
    folded: list[nn.BatchNorm2d] = []
    done: set[str] = set()
    for name, norm in network.named_modules():
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        tensors = {f"{name}.{key}": value for key, value in norm.state_dict().items() if value.is_floating_point()}
        done |= tensors.keys()
        if tensors.keys() <= weights.keys():
            for key, value in tensors.items():
                value.copy_(_weight(weights, key, value))
        else:
            norm.bias.copy_(_weight(weights, f"{before.get(name, name)}.weight{FOLDED}", norm.bias))
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            folded.append(norm)
    for key, value in network.named_parameters():
        if key not in done:
            value.copy_(_weight(weights, key, value))
    return folded


def _weight(weights: Mapping[str, Float32], name: str, like: Tensor) -> Tensor:
    if name not in weights:
        raise NotRestored(f"the graph has no {name}")
    if weights[name].shape != tuple(like.shape):
        raise NotRestored(f"{name} is {weights[name].shape} in the graph, {tuple(like.shape)} in the network")
    return torch.from_numpy(weights[name].copy())


@torch.no_grad()
def give_statistics(network: nn.Module, norms: Sequence[nn.BatchNorm2d], crops: Tensor) -> None:
    """Give norms the mean and variance of what comes to them, and leave the network's answers as they are.

    Args:
        network: in evaluation mode.
        norms: with mean 0, variance 1 and a scale that undoes them.
        crops: (N, 3, P, P) float32 in 0..1.
    """
    sums = {norm: torch.zeros(2, norm.num_features, dtype=torch.float64) for norm in norms}
    pixels = dict.fromkeys(norms, 0)

    def seen(norm: nn.Module, given: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        values = given[0].double()
        sums[norm] += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        pixels[norm] += values[:, 0].numel()

    hooks = [norm.register_forward_pre_hook(seen) for norm in norms]
    for batch in torch.split(crops, BATCH):
        network(batch)
    for hook in hooks:
        hook.remove()
    for norm, (total, squares) in sums.items():
        mean = total / pixels[norm]
        variance = (squares / pixels[norm] - mean.square()).clamp(min=0)
        norm.bias.add_(mean)
        norm.weight.copy_((variance + norm.eps).sqrt())
        for buffer, value in ((norm.running_mean, mean), (norm.running_var, variance)):
            assert buffer is not None
            buffer.copy_(value)


def write_runs(artifact: Artifact, home: Path, data: Path) -> list[Path]:
    """Make the run folders of a model.

    Args:
        artifact: the model.
        home: folder of the first member.
        data: root of the Lizard data set.

    Raises:
        NotRestored: a network does not answer as its graph does.
        FileExistsError: a folder is there already.
    """
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    folders = []
    for number, record in enumerate(runs_of(manifest["training"]), 1):
        config = RunConfig.model_validate(record["config"])
        graph = artifact.files[number - 1]
        network = restore(config.network, weights_of(graph), _crops(config, data))
        worst = difference(Deployed(network), graph, 1)
        if not worst <= artifact.manifest.golden.tolerance:
            raise NotRestored(f"{config.network} as restored differs from its graph by {worst:.1e}")
        folders.append(home if number == 1 else home.with_name(f"{home.name}-{number}"))
        _write(folders[-1], network, config, record, manifest)
    return folders


def _crops(config: RunConfig, data: Path) -> Tensor:
    crops = random_crops(config, split(config, data)[0])
    return torch.stack([crops[i]["image"] for i in range(min(CROPS, len(crops)))]).float() / 255


def _write(
    folder: Path, network: nn.Module, config: RunConfig, record: Mapping[str, Any], manifest: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True)
    files = {
        RECORD: {key: record.get(key) for key in FIELDS},
        "operating_point.json": manifest["postprocess"],
        "calibration.json": manifest["calibration"],
    }
    (folder / "config.json").write_text(config.model_dump_json(indent=1))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    replace(folder / "best.pt", {"network": network.state_dict(), "name": config.network})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME or NAME@VERSION")
    parser.add_argument("run", type=Path, help="folder to make")
    parser.add_argument("--store", type=Path, default=default_store(), help="where the model lies")
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    arguments = parser.parse_args()
    for folder in write_runs(load_artifact(arguments.model, arguments.store), arguments.run, arguments.data):
        print(folder)


if __name__ == "__main__":
    main()
