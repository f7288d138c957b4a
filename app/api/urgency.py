"""How urgent is a request, and until when is its answer worth something? Two headers say so."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.datastructures import Headers

from app.nuclei.errors import InvalidParameter
from app.serving.work import WorkClass

TIMEOUT, CLASS = "X-Request-Timeout-Ms", "X-Request-Class"
LONGEST_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Urgency:
    """What a caller said, or left to us.

    Attributes:
        work_class: interactive or bulk.
        deadline: on the monotonic clock; None if the caller set none.
    """

    work_class: WorkClass
    deadline: float | None = None


def urgency(headers: Headers, highest: WorkClass) -> Urgency:
    """Read both headers.

    Args:
        headers: of the request.
        highest: class of the route; a caller may lower it, not raise it.

    Raises:
        InvalidParameter: naming the header that makes no sense.
    """
    return Urgency(_work_class(headers.get(CLASS), highest), _deadline(headers.get(TIMEOUT)))


def _work_class(given: str | None, highest: WorkClass) -> WorkClass:
    if given is None:
        return highest
    allowed = [one for one in WorkClass if one is highest or one is WorkClass.BULK]
    if given.strip().lower() not in allowed:
        raise InvalidParameter(CLASS, f"{CLASS} can be {' or '.join(allowed)} here")
    return WorkClass(given.strip().lower())


def _deadline(given: str | None) -> float | None:
    if given is None:
        return None
    text = given.strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= LONGEST_MS):
        raise InvalidParameter(TIMEOUT, f"{TIMEOUT} is a whole number of milliseconds from 1 to {LONGEST_MS}")
    return time.monotonic() + int(text) / 1000
