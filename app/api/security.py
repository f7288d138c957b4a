"""Who is calling? API keys, of which the service knows only the SHA-256.

Keys are random strings, so one round of SHA-256 is enough: there is no dictionary to try. Two keys may carry one id,
which is how a key is replaced without a gap.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from app.api.errors import Unauthenticated
from app.settings import ApiKey

NOBODY = "unknown-address"


def identify(connection: HTTPConnection, keys: Sequence[ApiKey], allow_anonymous: bool) -> str:
    """The tenant of a request: `key:ID`, or `address:HOST` where keys are not asked for.

    The key is read from `Authorization: Bearer KEY` or `X-API-Key: KEY`.

    Raises:
        Unauthenticated: if a key is needed and missing, or if one is given and unknown.
    """
    given = _presented(connection)
    if keys and given is not None:
        return f"key:{_owner(given, keys)}"
    if keys and not allow_anonymous:
        raise Unauthenticated("this service needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY")
    return f"address:{connection.client.host if connection.client else NOBODY}"


def _presented(connection: HTTPConnection) -> str | None:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key")


def _owner(given: str, keys: Sequence[ApiKey]) -> str:
    digest = hashlib.sha256(given.encode()).hexdigest()
    # Every key is compared, so the time taken tells nothing about which came close.
    owners = [key.id for key in keys if hmac.compare_digest(digest, key.sha256)]
    if not owners:
        raise Unauthenticated("this API key is not known")
    return owners[0]
