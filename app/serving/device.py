"""Which device do models run on, and how is an engine kept to the one thread that owns it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from app.nuclei.artifact import Artifact
from app.nuclei.engine import CPU, CUDA, OnnxEngine
from app.nuclei.errors import EngineUnavailable
from app.nuclei.types import Engine, HoverMaps, UInt8

EngineOpener = Callable[[Artifact, str, int | None], Engine]
"""Artifact, ONNX Runtime provider, threads -> engine; `OnnxEngine.open` is one."""


T = TypeVar("T")


class Owner(Protocol):
    """The thread that owns the device."""

    def do(self, chore: Callable[[], T]) -> T:
        """Run a chore there, between batches, and return what it returns."""
        ...


class DeviceEngine:
    """An engine that runs in its device's thread alone.

    `predict` may be called from any thread and waits for its turn between batches: that is for proving a model and
    for calibration. The device's thread itself uses `engine`. What an engine lacks of `terminate`, `resume` and
    `shrink` (an engine that is no session) does nothing.
    """

    def __init__(self, open_engine: Callable[[], Engine], owner: Owner) -> None:
        """Open it.

        Args:
            open_engine: makes the engine, and makes it anew after memory ran out.
            owner: of the device.
        """
        self._open = open_engine
        self._owner = owner
        self.engine = open_engine()
        self.rebuilt = False

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

    @property
    def runtime(self) -> str:
        """Name and version of what runs the networks."""
        return str(getattr(self.engine, "runtime", "unknown"))

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `Engine`; waits for the device's thread."""
        return self.do(lambda: self.engine.predict(patches))

    def do(self, chore: Callable[[], T]) -> T:
        """Do something with the engine in the device's thread, between batches; returns what it returns."""
        return self._owner.do(chore)

    def rebuild(self) -> None:
        """Open the engine anew; in the device's thread only."""
        self.rebuilt = True
        self.engine = self._open()

    def terminate(self) -> None:
        """End the run that is going on, soon; from any thread."""
        self._call("terminate")

    def resume(self) -> None:
        """Let runs run again; in the device's thread only."""
        self._call("resume")

    def shrink(self) -> None:
        """Give unused memory back; in the device's thread only."""
        self._call("shrink")

    def _call(self, name: str) -> None:
        method = getattr(self.engine, name, None)
        if method is not None:
            method()


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
