"""What is measured on a device: networks in torch, the same as an artifact that serves, tissue, nuclei to separate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from skimage.data import immunohistochemistry
from torch import nn

from app.nuclei import hover
from app.nuclei.artifact import Artifact, open_folder
from app.nuclei.taxonomy import NAMES
from app.nuclei.types import HoverMaps, UInt8
from app.nuclei.views import PAPER_VIEWS, View
from tests.drawn import InkEngine, draw_tissue
from training.deployed import Deployed, TrainedMember
from training.export import write_artifact
from training.network import build

SIDE = 256
DRAWN = 8


@dataclass(frozen=True)
class Trial:
    """A model twice: as torch networks and as an artifact.

    Attributes:
        name: short.
        networks: in evaluation mode, on the device.
        artifact: of the same weights.
        trained: whether its maps are worth separating.
    """

    name: str
    networks: tuple[nn.Module, ...]
    artifact: Artifact
    trained: bool

    def member(self, index: int) -> Trial:
        """One of its members alone."""
        entry = self.artifact.manifest.members[index]
        alone = Artifact(self.artifact.folder, replace(self.artifact.manifest, members=(entry,)))
        return Trial(entry.encoder, (self.networks[index],), alone, self.trained)

    def maps(self, index: int) -> HoverMaps:
        """Maps (1, P, P) of drawn tissue, which stand in for those of networks that were not trained."""
        return self._drawn[index % DRAWN]

    @cached_property
    def _drawn(self) -> list[HoverMaps]:
        return [InkEngine().predict(draw_tissue(SIDE, SIDE, seed)[None]) for seed in range(DRAWN)]


def tissue(count: int = 16) -> UInt8:
    """(N, 256, 256, 3) of stained tissue that comes inside scikit-image."""
    image: UInt8 = immunohistochemistry()  # type: ignore[no-untyped-call]
    return np.stack([image[7 * i : 7 * i + SIDE, 15 * i : 15 * i + SIDE] for i in range(count)])


def untrained(encoders: Sequence[str], device: torch.device, store: Path) -> Trial:
    """Networks with random weights, exported into a store unless they are there."""
    name = "+".join(encoders)
    folder, weights = store / name / "1", store / name / "networks.pt"
    if not folder.is_dir():
        networks = [fitted(encoder, device).cpu() for encoder in encoders]
        weights.parent.mkdir(parents=True, exist_ok=True)
        torch.save([network.state_dict() for network in networks], weights)
        members = [TrainedMember(e, network) for e, network in zip(encoders, networks, strict=True)]
        write_artifact(members, manifest(name), store, "# random weights\n")
    states = torch.load(weights, weights_only=True)
    networks = [build(encoder) for encoder in encoders]
    for network, state in zip(networks, states, strict=True):
        network.load_state_dict(state)
    return Trial(name, tuple(network.to(device).eval() for network in networks), open_folder(folder), trained=False)


def trained(artifact: Artifact, runs: Sequence[Path], device: torch.device) -> Trial:
    """A model that was trained, and the run folders that its members came from."""
    networks = tuple(TrainedMember.read(run / "best.pt").network.to(device) for run in runs)
    return Trial(artifact.name, networks, artifact, trained=True)


def fitted(encoder: str, device: torch.device) -> nn.Module:
    """A network from a fixed seed, whose batch norms know tissue: else its activations leave what float16 can hold."""
    torch.manual_seed(len(encoder))
    network = build(encoder, dropout=0.0).to(device).train()
    batch = torch.from_numpy(tissue(4)).to(device).permute(0, 3, 1, 2).float() / 255
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        network(batch)
    return network.eval()


def manifest(name: str) -> dict[str, object]:
    """Of a model that nothing is known of."""
    return {
        "name": name,
        "version": "1",
        "classes": list(NAMES),
        "mpp": 0.5,
        "patch_sizes": [SIDE],
        "margin": 48,
        "postprocess": hover.NATIVE.to_dict(),
        "profiles": {"fast": ["original"], "accurate": [view.name for view in PAPER_VIEWS]},
        "calibration": {"temperature": 1.0},
        "licence": "none: random weights",
        "training": {"data": "none: random weights"},
        "tumour_burden_reason": "random weights",
        "scores": {},
    }


@torch.no_grad()
def plain_maps(networks: Sequence[nn.Module], batch: UInt8, views: Sequence[View], device: torch.device) -> HoverMaps:
    """Maps as research code makes them: every member on every view, flips in torch, the mean on the host."""
    pixels = torch.from_numpy(batch).to(device)
    found = []
    for network in networks:
        deployed = Deployed(network)
        for view in views:
            axes = [axis for axis, on in ((1, view.flip_ud), (2, view.flip_lr)) if on]
            maps = deployed(pixels.flip(axes) if axes else pixels)
            found.append(view.unsee(HoverMaps(*(m.cpu().numpy() for m in maps))))
    columns = ([getattr(maps, name) for maps in found] for name in ("np_prob", "hv", "type_prob"))
    return HoverMaps(*(np.mean(column, axis=0, dtype=np.float32) for column in columns))
