"""Do the runs whose maps are averaged (members of an ensemble, views of a patch) agree on what is nucleus?

Every run has a vote on every pixel. Their number is enough: it takes a byte a pixel, further runs are added to it, and
how often two runs differ can be told from it whatever their number is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.nuclei.types import Ballot, Float32, HoverMaps, UInt8

NUCLEUS = 0.5
"""A run takes a pixel for nucleus from this probability on."""

BAND = 512
"""Rows that are counted at once: a count of a whole image would take eight bytes a pixel."""


def cast(np_prob: Float32) -> Ballot:
    """The ballot of one run, from its probabilities of nucleus."""
    return Ballot((np_prob >= NUCLEUS).astype(np.uint8), 1)


def of(maps: HoverMaps) -> Ballot:
    """The ballot that maps have, or that of the one run they are."""
    return maps.ballot or cast(maps.np_prob)


def joint(ballots: Sequence[Ballot]) -> Ballot:
    """The ballot of all runs of several ballots on the same pixels, at least one."""
    votes = ballots[0].votes
    for ballot in ballots[1:]:
        votes = votes + ballot.votes
    return Ballot(votes, sum(ballot.runs for ballot in ballots))


def disagreement(ballot: Ballot) -> float:
    """How much of what one run takes for nucleus another one does not, in the mean over all pairs of runs.

    One less the Dice coefficient of two runs, of all pairs together; so it does not grow with the number of runs.

    Returns:
        0 (all say the same) to 1; 0 for one run, or without a pixel that any run takes for nucleus.
    """
    pixels = _pixels_by_votes(ballot)
    votes, runs = np.arange(len(pixels)), ballot.runs
    taken, differing = int(pixels @ votes) * (runs - 1), int(pixels @ (votes * (runs - votes)))
    return differing / taken if taken else 0.0


def _pixels_by_votes(ballot: Ballot) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rows: UInt8 = ballot.votes.reshape(-1, ballot.votes.shape[-1])
    found = np.zeros(ballot.runs + 1, np.int64)
    for top in range(0, len(rows), BAND):
        found += np.bincount(rows[top : top + BAND].ravel(), minlength=ballot.runs + 1)
    return found
