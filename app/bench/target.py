"""How is the service asked? One connection pool of one caller, that sends tiles in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from app.bench.samples import NO_ANSWER, Answer

JPEG = {"Content-Type": "image/jpeg"}
LAST_LINE = 200  # bytes in which the last line of a batch's answer has room


class Target:
    """One caller of a service; an asynchronous context manager."""

    def __init__(
        self,
        address: str,
        tiles: Sequence[bytes],
        key: str | None = None,
        timeout_s: float = 60.0,
        keep_alive: bool = True,
        mpp: float = 0.5,
    ) -> None:
        """Nothing is sent yet.

        Args:
            address: of the service.
            tiles: JPEG files; request `n` sends tile `n` modulo their number.
            key: API key of this caller.
            timeout_s: silence after which a request counts as unanswered.
            keep_alive: False opens a connection for each request.
            mpp: scale that is stated with each tile.
        """
        self._tiles = tiles
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None if keep_alive else 0)
        self._params = {"mpp": str(mpp)}
        self._http = httpx.AsyncClient(
            base_url=address, headers=headers, timeout=timeout_s, limits=limits, trust_env=False
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def segment(self, number: int, **headers: str) -> Answer:
        """Send one tile, interactive; never raises for what the service does."""
        tile = self._tiles[number % len(self._tiles)]
        try:
            response = await self._http.post("/v1/segment", content=tile, params=self._params, headers=JPEG | headers)
        except httpx.HTTPError:
            return Answer(NO_ANSWER)
        return Answer(response.status_code, server_timing(response.headers.get("server-timing", "")))

    async def batch(self, first: int, count: int) -> tuple[int, int]:
        """Send `count` tiles in one bulk request.

        Returns:
            Status of the request, and how many of its tiles were served.
        """
        tiles = [self._tiles[(first + i) % len(self._tiles)] for i in range(count)]
        files = [("image", (f"{i}.jpg", tile, "image/jpeg")) for i, tile in enumerate(tiles)]
        last = b""
        try:
            async with self._http.stream("POST", "/v1/segment/batch", files=files, params=self._params) as response:
                async for chunk in response.aiter_raw():  # megabytes, of which only the last line is of interest
                    last = (last + chunk)[-LAST_LINE:]
        except httpx.HTTPError:
            return NO_ANSWER, 0
        return response.status_code, served(last) if response.status_code == 200 else 0

    async def metrics(self) -> str:
        """What the service counts, in Prometheus' text format."""
        return (await self._http.get("/metrics")).raise_for_status().text


def served(last: bytes) -> int:
    """How many tiles the last line of a batch's answer says were served; 0 if the answer broke off before it."""
    line = last.rstrip(b"\n").rpartition(b"\n")[2]
    try:
        found: Mapping[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        return 0
    return int(found.get("ok", 0))


def server_timing(header: str) -> dict[str, float]:
    """Milliseconds of each stage in a Server-Timing header; what has no duration is left out."""
    parts = [entry.strip().partition(";dur=") for entry in header.split(",")]
    return {name: float(milliseconds) for name, found, milliseconds in parts if found}
