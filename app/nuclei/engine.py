"""How do patches become maps on a device? ONNX Runtime; the only module that knows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.nuclei.artifact import Artifact
from app.nuclei.errors import EngineUnavailable
from app.nuclei.types import HoverMaps, UInt8

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
OUTPUTS = ("np_prob", "hv", "type_prob")


@dataclass(frozen=True)
class OnnxEngine:
    """All members of a model as sessions on one device; their maps averaged (PAPER.md 4).

    Attributes:
        sessions: one per member, in the manifest's order.
        provider: ONNX Runtime's name of the device, read back after loading.
        options: of every run; `terminate` sets its flag.
        smallest: side of the smallest patch that the model takes.
        runtime: name and version of ONNX Runtime.
    """

    sessions: tuple[InferenceSession, ...]
    provider: str
    options: RunOptions
    smallest: int
    runtime: str = "unknown"
    precision: str = "float32"

    @classmethod
    def open(cls, artifact: Artifact, provider: str = CPU, threads: int | None = None) -> OnnxEngine:
        """Load every member of a model.

        Args:
            artifact: verified model folder.
            provider: `CPUExecutionProvider` or `CUDAExecutionProvider`.
            threads: of the CPU; `cpu_limit()` if None.

        Raises:
            EngineUnavailable: ONNX Runtime is missing, or fell back to another device (it does so silently).
        """
        try:
            import onnxruntime  # noqa: PLC0415  (starting without it must say what to install)
        except ImportError as error:
            raise EngineUnavailable(
                "ONNX Runtime is not installed: pip install 'karyon[cpu]', or 'karyon[gpu]' for NVIDIA"
            ) from error
        if provider not in onnxruntime.get_available_providers():
            raise EngineUnavailable(f"this ONNX Runtime has no {provider}; pip install 'karyon[gpu]' brings CUDA")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cpu_limit()
        options.log_severity_level = 3
        # Idle threads that spin take the CPU from separation and from other requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        sessions = tuple(onnxruntime.InferenceSession(file, options, providers=[provider]) for file in artifact.files)
        used = {session.get_providers()[0] for session in sessions}
        if used != {provider}:
            raise EngineUnavailable(f"{provider} was demanded, ONNX Runtime uses {', '.join(sorted(used))}")
        runtime = f"onnxruntime {onnxruntime.__version__}"
        return cls(sessions, provider, onnxruntime.RunOptions(), artifact.manifest.patch_sizes[0], runtime)

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return "cuda" if self.provider == CUDA else "cpu"

    def predict(self, patches: UInt8) -> HoverMaps:
        """Mean of the members' maps; see `Engine`."""
        return mean([_run(session, patches, self.options) for session in self.sessions])

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
        for session in self.sessions:
            _run(session, np.zeros((1, self.smallest, self.smallest, 3), np.uint8), options)


def mean(members: Sequence[HoverMaps]) -> HoverMaps:
    """Members' maps averaged as probabilities, in their order."""
    if len(members) == 1:
        return members[0]
    columns = ([getattr(m, name) for m in members] for name in OUTPUTS)
    return HoverMaps(*(np.asarray(np.mean(column, axis=0, dtype=np.float32)) for column in columns))


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
