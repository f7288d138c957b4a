"""Who is calling, and may they? API keys, of which the service knows only the SHA-256; without keys, the address.

Keys are random strings, so one round of SHA-256 is enough: there is no dictionary to try. Two keys may carry one id,
which is how a key is replaced without a gap.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from app.api.errors import Forbidden, Unauthenticated
from app.settings import ApiKey, Network

NOBODY = "unknown-address"
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})


def identify(
    connection: HTTPConnection, keys: Sequence[ApiKey], allow_anonymous: bool, proxies: Sequence[Network] = ()
) -> str:
    """The tenant of a request: `key:ID`, or `address:HOST` where keys are not asked for.

    The key is read from `Authorization: Bearer KEY` or `X-API-Key: KEY`.

    Args:
        connection: the request.
        keys: that are known.
        allow_anonymous: serve callers without a key.
        proxies: whose word on the caller's address counts; see `caller_address`.

    Raises:
        Unauthenticated: if a key is needed and missing, or if one is given and unknown.
        Forbidden: if the key may only read, and this request would do more.
    """
    given = _presented(connection)
    if keys and given is not None:
        key = _known(given, keys)
        if key.rights == "read" and connection.scope.get("method") not in LOOKING:
            raise Forbidden("this API key may read what is kept, and nothing else")
        return f"key:{key.id}"
    if keys and not allow_anonymous:
        raise Unauthenticated("this service needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY")
    return f"address:{caller_address(connection, proxies)}"


def caller_address(connection: HTTPConnection, proxies: Sequence[Network]) -> str:
    """The caller's address: the peer's, unless that is a trusted proxy.

    Each proxy appends to `X-Forwarded-For` whom it was called by, so the list is read from its end, as far as those
    who wrote it are trusted: what stands before was written by the caller, who may write anything.
    """
    address = connection.client.host if connection.client else NOBODY
    named = [part.strip() for line in connection.headers.getlist("x-forwarded-for") for part in line.split(",")]
    while named and _among(address, proxies):
        if not (parsed := _parsed(named.pop())):
            break
        address = parsed
    return address


def _among(address: str, networks: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return bool(parsed) and any(ipaddress.ip_address(parsed) in network for network in networks)


def _parsed(text: str) -> str:
    """The address in its one spelling, without a port; empty if it is none."""
    bare = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    bare = bare.partition(":")[0] if bare.count(":") == 1 else bare
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _presented(connection: HTTPConnection) -> str | None:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key")


def _known(given: str, keys: Sequence[ApiKey]) -> ApiKey:
    digest = hashlib.sha256(given.encode()).hexdigest()
    # Every key is compared, so the time taken tells nothing about which came close.
    found = [key for key in keys if hmac.compare_digest(digest, key.sha256)]
    if not found:
        raise Unauthenticated("this API key is not known")
    return found[0]
