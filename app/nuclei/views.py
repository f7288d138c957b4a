"""How is tissue seen from eight sides, and how do the maps come back?

Tissue has no up and no left. A network's maps of a flipped patch, flipped back, are as good as those of the patch
itself; their mean is better than either (PAPER.md 4). Offsets are arrows: they must be turned back as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.nuclei import ballots
from app.nuclei.types import Ballot, Engine, Float32, HoverMaps, UInt8

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class View:
    """One of the eight symmetries of a square: transpose first, then flip left-right, then up-down.

    Attributes:
        name: as manifests have it.
    """

    name: str
    transpose: bool = False
    flip_lr: bool = False
    flip_ud: bool = False

    def see(self, array: Array) -> Array:
        """The array in this view: (H, W), or (..., H, W, C) with channels that are no arrows."""
        rows, cols = _axes(array)
        if self.transpose:
            array = np.swapaxes(array, rows, cols)
        return self._flip(array)

    def see_hv(self, hv: Float32) -> Float32:
        """Offsets (..., H, W, 2) as this view has them; the inverse of `unsee_hv`."""
        turned = self.see(hv[..., ::-1] if self.transpose else hv) * self._signs()
        return np.ascontiguousarray(turned)

    def unsee(self, maps: HoverMaps) -> HoverMaps:
        """Maps of a seen patch, back where the patch was, arrows included."""
        np_prob = self._unsee_plain(maps.np_prob[..., None])[..., 0]
        ballot = maps.ballot and Ballot(self._unsee_plain(maps.ballot.votes[..., None])[..., 0], maps.ballot.runs)
        return HoverMaps(np_prob, self.unsee_hv(maps.hv), self._unsee_plain(maps.type_prob), ballot=ballot)

    def unsee_hv(self, hv: Float32) -> Float32:
        """Offsets (..., H, W, 2) back: a flip turns its own arrows round, a transpose exchanges them."""
        back = self._unsee_plain(hv) * self._signs()
        return np.ascontiguousarray(back[..., ::-1]) if self.transpose else back

    def _signs(self) -> Float32:
        return np.array([-1 if self.flip_lr else 1, -1 if self.flip_ud else 1], np.float32)

    def _unsee_plain(self, array: Array) -> Array:
        array = self._flip(array)
        return np.swapaxes(array, *_axes(array)) if self.transpose else array

    def _flip(self, array: Array) -> Array:
        flipped = tuple(a for a, on in zip(_axes(array), (self.flip_ud, self.flip_lr), strict=True) if on)
        return np.flip(array, flipped) if flipped else array


def _axes(array: Array) -> tuple[int, int]:
    return (0, 1) if array.ndim == 2 else (array.ndim - 3, array.ndim - 2)


VIEWS: tuple[View, ...] = (
    View("original"),
    View("left-right", flip_lr=True),
    View("up-down", flip_ud=True),
    View("half-turn", flip_lr=True, flip_ud=True),
    View("transpose", transpose=True),
    View("quarter-turn", transpose=True, flip_ud=True),
    View("three-quarter-turn", transpose=True, flip_lr=True),
    View("anti-transpose", transpose=True, flip_lr=True, flip_ud=True),
)
BY_NAME: dict[str, View] = {view.name: view for view in VIEWS}
PAPER_VIEWS: tuple[View, ...] = VIEWS[:3]
"""The paper's three (PAPER.md 4)."""


Averager = Callable[[UInt8, Sequence[View]], HoverMaps]


def predict(engine: Engine, patches: UInt8, views: Sequence[View]) -> HoverMaps:
    """Mean of an engine's maps over several views, each brought back.

    Args:
        engine: what knows the network. One that has a method `predict_views(patches, views)` averages by itself, such
            as the queue before a device, where patches wait once for all their views.
        patches: (N, P, P, 3) uint8 RGB.
        views: at least one; summed in this order, so the result does not depend on who else is served.

    Raises:
        ValueError: if there are no views.
    """
    if not views:
        raise ValueError("no views to average")
    own: Averager | None = getattr(engine, "predict_views", None)
    return own(patches, views) if own is not None else average(engine.predict, patches, views)


def average(run: Callable[[UInt8], HoverMaps], patches: UInt8, views: Sequence[View]) -> HoverMaps:
    """Mean over several views of what `run` gives, seen and brought back here, one view after the other.

    Of more than one view the mean has a ballot.
    """
    seen = (view.unsee(run(np.ascontiguousarray(view.see(patches)))) for view in views)
    first = next(seen)
    if len(views) == 1:
        return first
    sums = [m.astype(np.float32) for m in (first.np_prob, first.hv, first.type_prob)]
    ballot = ballots.of(first)
    for maps in seen:
        ballot = ballots.joint([ballot, ballots.of(maps)])
        for total, part in zip(sums, (maps.np_prob, maps.hv, maps.type_prob), strict=True):
            np.add(total, part, out=total)
    return HoverMaps(*(total / np.float32(len(views)) for total in sums), ballot=ballot)
