"""How does a batch go through networks without leaving the device in between?

Three steps, each a run of sessions with bound inputs and outputs: the patches cross over and are laid out in all their
views, every network maps them, and the mean comes back. On a GPU only uint8 patches go there and only one set of maps
comes back; on a CPU the same steps give the same bits as plain runs, which is how they are tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from app.nuclei import graphs
from app.nuclei.graphs import MAPS
from app.nuclei.types import Ballot, HoverMaps, UInt8
from app.nuclei.views import View


class Session(Protocol):
    """What of ONNX Runtime's sessions is used here."""

    def io_binding(self) -> Any:
        """Inputs and outputs of one run, each where it is."""
        ...

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        """Run with them."""
        ...


OpenGraph = Callable[[bytes], Session]


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch that is on the device already.

    Attributes:
        seen: all views of all patches, an OrtValue there.
        views: in which they were laid out.
        count: patches; the rows beyond them are padding.
    """

    seen: Any
    views: tuple[View, ...]
    count: int


@dataclass(frozen=True)
class Ends:
    """The two small graphs around the networks, for one set of views."""

    seeing: Session
    folding: Session


@dataclass(frozen=True)
class Board:
    """Networks with all that is around them, on one device.

    Attributes:
        members: one session a network.
        ends: for every set of views that requests ask for.
        device: as bindings name it: cpu or cuda.
    """

    members: tuple[Session, ...]
    ends: Mapping[tuple[View, ...], Ends]
    device: str

    @classmethod
    def lay(
        cls, members: Sequence[Session], sets: Sequence[tuple[View, ...]], device: str, open_graph: OpenGraph
    ) -> Board:
        """Open the small graphs for some sets of views.

        Raises:
            EngineUnavailable: the package onnx is missing.
        """
        ends = {
            views: Ends(open_graph(graphs.seeing(views)), open_graph(graphs.folding(views, len(members))))
            for views in dict.fromkeys(sets)
        }
        return cls(tuple(members), ends, device)

    def stage(self, patches: UInt8, views: Sequence[View], rows: int) -> Staged:
        """Bring patches (N, P, P, 3) over, with empty ones behind them up to `rows`; from any thread."""
        count = len(patches)
        if rows > count:
            patches = np.concatenate([patches, np.zeros((rows - count, *patches.shape[1:]), np.uint8)])
        session = self.ends[tuple(views)].seeing
        binding = session.io_binding()
        binding.bind_cpu_input("patches", np.ascontiguousarray(patches))
        binding.bind_output("seen", self.device)
        _run(session, binding)
        return Staged(binding.get_outputs()[0], tuple(views), count)

    def run(self, staged: Staged, options: Any) -> HoverMaps:
        """The mean over views and networks, `staged.count` patches; the flag of `options` ends it in between."""
        folding = self.ends[staged.views].folding
        fold = folding.io_binding()
        fold.bind_cpu_input("count", np.array([staged.count], np.int64))
        for index, member in enumerate(self.members):
            binding = member.io_binding()
            binding.bind_ortvalue_input("patches", staged.seen)
            for name in MAPS:
                binding.bind_output(name, self.device)
            _run(member, binding, options)
            for name, value in zip(MAPS, binding.get_outputs(), strict=True):
                fold.bind_ortvalue_input(f"{name}.{index}", value)
        runs = graphs.runs(staged.views, len(self.members))
        for name in (*MAPS, graphs.VOTES) if runs > 1 else MAPS:
            fold.bind_output(name, "cpu")
        _run(folding, fold, options)
        found = [value.numpy() for value in fold.get_outputs()]
        return HoverMaps(found[0], found[1], found[2], ballot=Ballot(found[3], runs) if runs > 1 else None)


def _run(session: Session, binding: Any, options: Any = None) -> None:
    """Sessions have streams of their own: each end of a run is waited for, or the next one reads what is not there."""
    binding.synchronize_inputs()
    session.run_with_iobinding(binding, options)
    binding.synchronize_outputs()
