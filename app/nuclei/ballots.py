"""Do the runs whose maps are averaged (members of an ensemble, views of a patch) agree on what is nucleus?

A ballot says for every pixel whether no run takes it for nucleus, all do, or some. That is enough to add further runs,
and unlike a variance it costs a byte a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np

from app.nuclei.types import Float32, HoverMaps, UInt8

NOBODY, SOME, ALL = 0, 1, 2
NUCLEUS = 0.5
"""A run takes a pixel for nucleus from this probability on."""


def cast(np_prob: Float32) -> UInt8:
    """The ballot of one run, from its probabilities of nucleus: NOBODY or ALL."""
    return np.where(np_prob >= NUCLEUS, np.uint8(ALL), np.uint8(NOBODY))


def of(maps: HoverMaps) -> UInt8:
    """The ballot that maps have, or that of the one run they are."""
    return cast(maps.np_prob) if maps.ballot is None else maps.ballot


def joint(ballots: Iterable[UInt8]) -> UInt8:
    """The ballot of all runs of several ballots of the same pixels, at least one."""
    return reduce(lambda one, other: np.where(one == other, one, np.uint8(SOME)), ballots)


def disagreement(ballot: UInt8) -> float:
    """Of the pixels that any run takes for nucleus, the share that not all do, 0..1; 0 if there are none."""
    some, everyone = (int(np.count_nonzero(ballot == said)) for said in (SOME, ALL))
    return some / max(1, some + everyone)
