"""Which of our media types does an `Accept` header ask for? RFC 9110 section 12.5.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.nuclei.errors import NotAcceptable


class Range(NamedTuple):
    """One entry of `Accept`: `type/subtype`, either may be `*`, and how much it is wanted, 0..1."""

    name: str
    quality: float

    def specificity(self, media_type: str) -> int:
        """3 if it names the type, 2 for `type/*`, 1 for `*/*`, 0 if it does not match."""
        if self.name == media_type:
            return 3
        if self.name == f"{media_type.partition('/')[0]}/*":
            return 2
        return 1 if self.name == "*/*" else 0


def choose(accept: str | None, offers: Sequence[str]) -> str:
    """The offer that is wanted most; among equals the first offered.

    Args:
        accept: value of the header; None or blank accepts anything.
        offers: media types that can be written, in our order of preference.

    Raises:
        NotAcceptable: if none is wanted.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_range(entry) for entry in accept.split(",") if entry.strip()]
    wanted = {offer: _quality(offer, ranges) for offer in offers}
    best = max(offers, key=lambda offer: wanted[offer])
    if not wanted[best]:
        raise NotAcceptable(f"none of the media types in Accept can be written; there are {', '.join(offers)}")
    return best


def _quality(offer: str, ranges: Sequence[Range]) -> float:
    matching = [r for r in ranges if r.specificity(offer)]
    return max(matching, key=lambda r: (r.specificity(offer), r.quality)).quality if matching else 0.0


def _range(entry: str) -> Range:
    name, *parameters = (part.strip().lower() for part in entry.split(";"))
    weights = [p.partition("=")[2].strip() for p in parameters if p.partition("=")[0].strip() == "q"]
    return Range(name, _weight(weights[0]) if weights else 1.0)


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0  # also NaN
