"""How do patches become maps on a device? ONNX Runtime; the only module that knows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.nuclei import ballots, graphs
from app.nuclei.artifact import Artifact, prove
from app.nuclei.errors import EngineUnavailable
from app.nuclei.lanes import Lanes, joined
from app.nuclei.onboard import Board, Staged
from app.nuclei.types import HoverMaps, UInt8
from app.nuclei.views import VIEWS, View, average

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
OUTPUTS = graphs.MAPS

Precision = Literal["float32", "float16", "int8"]

LIGHT = 16_000_000
"""Parameters of a model whose patches run side by side on a CPU: its weights are then in memory twice (64 MB more)."""


@dataclass(frozen=True)
class OnnxEngine:
    """All members of a model as sessions on one device; their maps averaged (PAPER.md 4).

    Attributes:
        sessions: one per member, in the manifest's order.
        provider: ONNX Runtime's name of the device, read back after loading.
        options: of every run; `terminate` sets its flag.
        smallest: side of the smallest patch that the model takes.
        runtime: name and version of ONNX Runtime.
        precision: type that the networks calculate in.
        board: runs whole batches on the device, views and averaging included; None where that is done here.
        pads: whether batches are filled up to a power of two: a GPU prepares itself anew for every new size.
        narrow: the same members in sessions that use one core each; none where patches do not run side by side.
        lanes: run patches side by side in those; None where all cores work on one patch after the other.
    """

    sessions: tuple[InferenceSession, ...]
    provider: str
    options: RunOptions
    smallest: int
    runtime: str = "unknown"
    precision: str = "float32"
    board: Board | None = None
    pads: bool = False
    narrow: tuple[InferenceSession, ...] = ()
    lanes: Lanes | None = None

    @classmethod
    def open(
        cls,
        artifact: Artifact,
        provider: str = CPU,
        threads: int | None = None,
        precision: Precision = "float32",
        memory: int | None = None,
        boarded: bool | None = None,
    ) -> OnnxEngine:
        """Load every member of a model.

        Args:
            artifact: verified model folder.
            provider: `CPUExecutionProvider` or `CUDAExecutionProvider`.
            threads: of the CPU; `cpu_limit()` if None.
            precision: type that the networks calculate in; float16 is for GPUs, and is tested on CPUs; int8 is for CPUs
                and models that hold such graphs.
            memory: bytes of the GPU that the networks may take together; None: no limit.
            boarded: whether views and averaging happen on the device; None: on a GPU.

        Raises:
            EngineUnavailable: ONNX Runtime is missing, or fell back to another device (it does so silently); or the
                model has no graphs in int8.
        """
        onnxruntime = _runtime(provider)
        threads = threads or cpu_limit()
        share = None if memory is None else memory // (len(artifact.files) + 1)  # the last is for the averaging
        chosen = (provider, provider_options(provider, precision, share))

        def opened(graph: Path | bytes, cores: int = threads) -> InferenceSession:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = cores
            options.log_severity_level = 3
            # Idle threads that spin take the CPU from separation and from other requests.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                session = onnxruntime.InferenceSession(graph, options, providers=[chosen])
            except Exception as error:
                if provider == CPU:
                    raise
                raise EngineUnavailable(f"{provider} does not start ({error}): {_advice(provider)}") from error
            if (used := session.get_providers()[0]) != provider:
                raise EngineUnavailable(f"{provider} was demanded, ONNX Runtime uses {used}: {_advice(provider)}")
            return session

        files = artifact.files if precision != "int8" else _int8_files(artifact)
        sessions = tuple(opened(_graph(file, precision)) for file in files)
        board = None
        if boarded or (boarded is None and provider == CUDA):
            sets = [VIEWS[:1], *(artifact.manifest.views(name) for name in artifact.manifest.profiles)]
            board = Board.lay(sessions, sets, "cuda" if provider == CUDA else "cpu", opened)
        run_options = onnxruntime.RunOptions()
        narrow: tuple[InferenceSession, ...] = ()
        if provider == CPU and threads > 1 and sum(m.parameters for m in artifact.manifest.members) <= LIGHT:
            narrow = tuple(opened(_graph(file, precision), 1) for file in files)
        return cls(
            sessions,
            provider,
            run_options,
            artifact.manifest.patch_sizes[0],
            f"onnxruntime {onnxruntime.__version__}",
            precision,
            board,
            pads=provider == CUDA,
            narrow=narrow,
            lanes=Lanes.open(threads, partial(_averaged, narrow, run_options)) if narrow else None,
        )

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return "cuda" if self.provider == CUDA else "cpu"

    @property
    def abreast(self) -> int:
        """Patches that run side by side; 1 where all cores work on one after the other."""
        return self.lanes.width if self.lanes else 1

    @property
    def boards(self) -> bool:
        """Whether the device can lay out the views and average them by itself."""
        return self.board is not None

    @property
    def stages(self) -> bool:
        """Whether a batch can be brought to the device while another one runs; on a CPU there is no way to go."""
        return self.board is not None and self.device == "cuda"

    def predict(self, patches: UInt8) -> HoverMaps:
        """Mean of the members' maps; see `Engine`."""
        if self.board is not None:
            return self.finish(self.stage(patches, VIEWS[:1]))
        aside = self.lanes.share(len(patches)) if self.lanes else 0
        if self.lanes and aside:
            maps = self.lanes.predict(patches[:aside])
            return maps if aside == len(patches) else joined([maps, self.predict(patches[aside:])])
        rows = self.padded(len(patches))
        return _averaged(self.sessions, self.options, _filled(patches, rows))[: len(patches)]

    def predict_views(self, patches: UInt8, views: Sequence[View]) -> HoverMaps:
        """Mean over views and members; on the device where it does that, else by flips here."""
        if self.board is not None and tuple(views) in self.board.ends:
            return self.finish(self.stage(patches, views))
        return average(self.predict, patches, views)

    def stage(self, patches: UInt8, views: Sequence[View]) -> Staged:
        """Bring a batch to the device, in views of one of the model's profiles; from any thread, if it `boards`."""
        assert self.board is not None
        return self.board.stage(patches, views, self.padded(len(patches)))

    def finish(self, staged: Staged) -> HoverMaps:
        """Run a batch that is on the device; its maps (N, P, P)."""
        assert self.board is not None
        return self.board.run(staged, self.options)

    def padded(self, count: int) -> int:
        """Rows that a batch of so many patches has on the device."""
        return 1 << (count - 1).bit_length() if self.pads else count

    def terminate(self) -> None:
        """End the present run within a node of its graph, and let none begin until `resume`; from any thread."""
        self.options.terminate = True

    def resume(self) -> None:
        """Let runs run again after `terminate`."""
        self.options.terminate = False

    def shrink(self) -> None:
        """Give the arena's unused memory back, at the end of a tiny run; not while another run is going on."""
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.RunOptions()
        # Only the device in use may be named: ONNX Runtime refuses arenas that are not there.
        options.add_run_config_entry(
            "memory.enable_memory_arena_shrinkage", "gpu:0" if self.device == "cuda" else "cpu:0"
        )
        tiny = np.zeros((1, self.smallest, self.smallest, 3), np.uint8)
        if self.board is not None:
            for views in self.board.ends:
                self.board.run(self.board.stage(tiny, views, 1), options)
            return
        for session in (*self.sessions, *self.narrow):
            _run(session, tiny, options)


def proven(artifact: Artifact, precision: Precision = "float32") -> OnnxEngine:
    """A CPU's engine that gives the golden maps.

    Raises:
        ArtifactDrift: it does not, on this CPU.
        EngineUnavailable: as `OnnxEngine.open`.
    """
    engine = OnnxEngine.open(artifact, precision=precision)
    prove(engine, artifact)
    return engine


def provider_options(provider: str, precision: Precision = "float32", memory: int | None = None) -> dict[str, str]:
    """What ONNX Runtime is told about a device.

    Args:
        provider: ONNX Runtime's name.
        precision: float32 is kept whole: without a word, a GPU multiplies with ten binary digits (TF32).
        memory: bytes of the GPU that one session's arena may take.
    """
    if provider != CUDA:
        return {}
    limit = {} if memory is None else {"gpu_mem_limit": str(memory)}
    return {
        "cudnn_conv_algo_search": "HEURISTIC",  # the default tries every algorithm for every new shape
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0" if precision == "float32" else "1",
        **limit,
    }


def _runtime(provider: str) -> ModuleType:
    try:
        import onnxruntime  # noqa: PLC0415  (starting without it must say what to install)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        what = "is not installed" if missing else f"is installed, but cannot be loaded ({error})"
        raise EngineUnavailable(
            f"ONNX Runtime {what}: pip install 'karyon[cpu]', or 'karyon[gpu]' for NVIDIA"
        ) from error
    if provider not in onnxruntime.get_available_providers():
        raise EngineUnavailable(f"this ONNX Runtime has no {provider}; pip install 'karyon[gpu]' brings CUDA")
    if provider == CUDA:
        with redirect_stdout(sys.stderr):  # it prints what it does not find
            onnxruntime.preload_dlls()  # the libraries of NVIDIA's packages are on no search path
    module: ModuleType = onnxruntime
    return module


def _advice(provider: str) -> str:
    if provider != CUDA:
        return "it lacks that device"
    return "is there an NVIDIA GPU, with a driver, CUDA and cuDNN of the versions that this ONNX Runtime was built for?"


def _int8_files(artifact: Artifact) -> tuple[Path, ...]:
    if artifact.manifest.int8 is None:
        raise EngineUnavailable(f"{artifact.name}@{artifact.version} has no graphs that calculate in int8")
    return tuple(artifact.folder / member.file for member in artifact.manifest.int8.members)


def _graph(file: Path, precision: Precision) -> Path | bytes:
    if precision != "float16":
        return file
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415  (needs the package onnx)

    return graphs.halved(file, convert_float_to_float16)


def mean(members: Sequence[HoverMaps]) -> HoverMaps:
    """Members' maps averaged as probabilities, in their order; of more than one, with a ballot."""
    if len(members) == 1:
        return members[0]
    columns = ([getattr(m, name) for m in members] for name in OUTPUTS)
    ballot = ballots.joint([ballots.of(m) for m in members])
    return HoverMaps(*(np.asarray(np.mean(column, axis=0, dtype=np.float32)) for column in columns), ballot=ballot)


def _filled(patches: UInt8, rows: int) -> UInt8:
    if rows == len(patches):
        return patches
    return np.concatenate([patches, np.zeros((rows - len(patches), *patches.shape[1:]), np.uint8)])


def _averaged(sessions: Sequence[InferenceSession], options: RunOptions, patches: UInt8) -> HoverMaps:
    return mean([_run(session, patches, options) for session in sessions])


def _run(session: InferenceSession, patches: UInt8, options: RunOptions) -> HoverMaps:
    return HoverMaps(*session.run(list(OUTPUTS), {"patches": np.ascontiguousarray(patches)}, options))


def cpu_limit() -> int:
    """CPUs this process may use: the smaller of its affinity and its control group's quota, at least 1.

    `os.cpu_count()` names the host's CPUs inside a container and so starts too many threads.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    try:  # version 2: "max 100000" or "200000 100000"
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:  # version 1: -1 is no limit
        limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if int(limit) < 0 else int(limit) / int(period)
    except (OSError, ValueError):
        return None
