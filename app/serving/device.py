"""Which device do models run on, and who may use it at a time?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from app.nuclei.artifact import Artifact
from app.nuclei.engine import CPU, CUDA, OnnxEngine
from app.nuclei.errors import EngineUnavailable
from app.nuclei.types import Engine, HoverMaps, UInt8

EngineOpener = Callable[[Artifact, str, int | None], Engine]
"""Artifact, ONNX Runtime provider, threads -> engine; `OnnxEngine.open` is one."""


@dataclass(frozen=True)
class OneAtATime:
    """An engine behind a lock: one batch is on the device, while other threads decode, separate and encode.

    Attributes:
        engine: what predicts; its sessions use all the threads they were given, so two at once only get in each
            other's way.
        lock: shared by all engines of a device.
    """

    engine: Engine
    lock: Lock

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the device, as the engine reports it."""
        return str(getattr(self.engine, "provider", ""))

    @property
    def device(self) -> str:
        """Kind of device: cpu or cuda."""
        return str(getattr(self.engine, "device", "cpu"))

    @property
    def precision(self) -> str:
        """Type the networks calculate in."""
        return str(getattr(self.engine, "precision", "float32"))

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `Engine`."""
        with self.lock:
            return self.engine.predict(patches)


def open_on(
    device: str, artifact: Artifact, threads: int | None, open_engine: EngineOpener = OnnxEngine.open
) -> Engine:
    """An engine on the device that is wanted.

    Args:
        device: cpu, cuda, or auto: CUDA if it can be had.
        artifact: the model.
        threads: of the CPU.
        open_engine: makes the engine.

    Raises:
        EngineUnavailable: no ONNX Runtime, or not on that device.
    """
    if device == "cpu":
        return open_engine(artifact, CPU, threads)
    try:
        return open_engine(artifact, CUDA, threads)
    except EngineUnavailable:
        if device == "cuda":
            raise
        return open_engine(artifact, CPU, threads)
