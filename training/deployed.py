"""How does a trained network look to what serves?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from app.nuclei.engine import mean
from app.nuclei.types import Engine, HoverMaps, Profile, UInt8
from app.nuclei.views import PAPER_VIEWS, View
from training.network import activate, build


class Deployed(nn.Module):
    """A network as it is served: uint8 (N, H, W, 3) in; np_prob (N, H, W), hv (N, H, W, 2), type_prob (N, H, W, 7)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        np_prob, hv, type_prob = activate(self.network(patches.permute(0, 3, 1, 2).float() / 255))
        return np_prob, hv.permute(0, 2, 3, 1), type_prob.permute(0, 2, 3, 1)


VIEWS_OF: Mapping[Profile, tuple[View, ...]] = {"fast": PAPER_VIEWS[:1], "accurate": PAPER_VIEWS}
"""What exported models average in each profile."""


@dataclass(frozen=True)
class TrainedMember:
    """A network with its weights, and the name it is built by."""

    encoder: str
    network: nn.Module

    @classmethod
    def read(cls, path: Path) -> TrainedMember:
        """Weights as training.train and training.convert write them, on the CPU wherever they were learnt."""
        content = torch.load(path, weights_only=True, map_location="cpu")
        network = build(content["name"])
        network.load_state_dict(content["network"])
        return cls(content["name"], network.eval())


class TorchEngine:
    """The domain's engine over torch, for what is decided before an export; on a GPU where there is one.

    Args:
        deployed: the network.
        bf16: calculate as a recipe in bfloat16 learns; maps differ by some hundredths then.
    """

    def __init__(self, deployed: Deployed, bf16: bool = False) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.deployed = deployed.eval().to(self.device)
        self.deployed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bf16 = bf16

    @torch.no_grad()
    def predict(self, patches: UInt8) -> HoverMaps:
        """See `app.nuclei.types.Engine`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            maps = self.deployed(torch.from_numpy(patches).to(self.device))
        return HoverMaps(*(m.float().cpu().numpy() for m in maps))


class Together:
    """Several engines as one: their maps averaged, as a served model averages its members'."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `app.nuclei.types.Engine`."""
        return mean([engine.predict(patches) for engine in self.engines])
