"""Which device do models run on, and how is an engine kept to the one thread that owns it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar, cast

import numpy as np

from app.nuclei import views as views_
from app.nuclei.artifact import Artifact, prove
from app.nuclei.engine import CPU, CUDA, OnnxEngine
from app.nuclei.errors import ArtifactDrift, EngineUnavailable
from app.nuclei.onboard import Staged
from app.nuclei.types import Engine, HoverMaps, UInt8
from app.nuclei.views import View

EngineOpener = Callable[[Artifact, str, int | None], Engine]
"""Artifact, ONNX Runtime provider, threads -> engine; `OnnxEngine.open` is one."""


T = TypeVar("T")


class Owner(Protocol):
    """The thread that owns the device."""

    def do(self, chore: Callable[[], T]) -> T:
        """Run a chore there, between batches, and return what it returns."""
        ...


@dataclass(frozen=True, slots=True)
class Copied:
    """A batch that was brought to the device, and how many seconds that took."""

    staged: Staged
    seconds: float


class DeviceEngine:
    """An engine that runs in its device's thread alone.

    Attributes:
        engine: what runs; belongs to the device's thread.
        rebuilt: whether it was opened anew since a run went well.
        boarded: whether views are laid out and averaged on the device; calibration decides.

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
        self.boarded = self.boards

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

    @property
    def boards(self) -> bool:
        """Whether views can be laid out and averaged on the device."""
        return bool(getattr(self.engine, "boards", False))

    @property
    def stages(self) -> bool:
        """Whether a batch can be brought to the device while another one runs there."""
        return self.boarded and bool(getattr(self.engine, "stages", False))

    @property
    def abreast(self) -> int:
        """Patches that run side by side; 1 where they do not."""
        return int(getattr(self.engine, "abreast", 1))

    @property
    def pads(self) -> bool:
        """Whether batches are filled up to a power of two."""
        return bool(getattr(self.engine, "pads", False))

    def padded(self, count: int) -> int:
        """Rows that a batch of so many patches has on the device."""
        rows: Callable[[int], int] = getattr(self.engine, "padded", int)
        return rows(count)

    def predict(self, patches: UInt8) -> HoverMaps:
        """See `Engine`; waits for the device's thread."""
        return self.do(lambda: self.engine.predict(patches))

    def average(self, patches: UInt8, views: Sequence[View], boarded: bool | None = None) -> HoverMaps:
        """Mean over several views; in the device's thread only.

        Args:
            patches: (N, P, P, 3).
            views: of a profile.
            boarded: whether the device averages; None: as it is set.
        """
        if self.boarded if boarded is None else boarded:
            return views_.predict(self.engine, patches, views)
        return views_.average(self.engine.predict, patches, views)

    def stage(self, patches: UInt8, views: Sequence[View]) -> Staged:
        """Bring a batch to the device, if it `stages`; from any thread."""
        return cast(OnnxEngine, self.engine).stage(patches, views)

    def copy(self, patches: Sequence[UInt8], views: Sequence[View]) -> Copied:
        """As `stage`, of patches that are each (P, P, 3), by the clock."""
        began = time.monotonic()
        return Copied(self.stage(np.stack(patches), views), time.monotonic() - began)

    def finish(self, staged: Staged) -> HoverMaps:
        """Run a batch that was brought over; in the device's thread only."""
        return cast(OnnxEngine, self.engine).finish(staged)

    def do(self, chore: Callable[[], T]) -> T:
        """Do something with the engine in the device's thread, between batches; returns what it returns."""
        return self._owner.do(chore)

    def rebuild(self) -> None:
        """Open the engine anew, on the device that it was on; in the device's thread only.

        Raises:
            EngineUnavailable: it cannot be had there now. The old engine stays: on another device costs, batches and
                metrics would be wrong, and nothing would ever bring it back.
        """
        self.rebuilt = True
        provider, anew = self.provider, self._open()
        if str(getattr(anew, "provider", "")) != provider:
            raise EngineUnavailable(f"{provider} cannot be had now")
        self.engine = anew

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


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens engines as an operator wants them; an `EngineOpener`.

    Attributes:
        precision: of the networks. auto takes float16 on a GPU for a model that ONNX Runtime opens so and that gives
            its golden maps in it, else float32; float16 is a GPU's alone. int8 is a CPU's, for models that hold graphs
            for it and give their golden maps there; else it calculates in float32, and a GPU as by auto.
        memory: bytes of the GPU that one model may take; None: no limit.
        warn: is told why a model calculates in float32 instead.
    """

    precision: Literal["auto", "float32", "float16", "int8"] = "auto"
    memory: int | None = None
    open_engine: Callable[..., Engine] = OnnxEngine.open
    warn: Callable[[str], None] = lambda _: None

    def __call__(self, artifact: Artifact, provider: str, threads: int | None) -> Engine:
        """Open a model on a provider of ONNX Runtime.

        Raises:
            EngineUnavailable: no ONNX Runtime, or not on that device.
        """
        opened = partial(self.open_engine, artifact, provider, threads, memory=self.memory)
        if provider == CPU and self.precision == "int8" and artifact.manifest.int8:
            return self._proven(opened, artifact, "int8")
        if provider == CPU or self.precision == "float32":
            return opened(precision="float32")
        if self.precision == "float16":
            return opened(precision="float16")
        return self._proven(opened, artifact, "float16")

    def _proven(
        self, opened: Callable[..., Engine], artifact: Artifact, precision: Literal["float16", "int8"]
    ) -> Engine:
        """An engine in this precision if it gives the golden maps, else one in float32."""
        try:
            engine = opened(precision=precision)
            prove(engine, artifact)
        except ArtifactDrift as drift:
            self.warn(f"not in {precision}: {drift}")
        except EngineUnavailable:  # without a GPU float32 is not to be had either, and says so
            pass
        else:
            return engine
        return opened(precision="float32")


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
