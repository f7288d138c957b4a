"""How does a Python program ask the service? One class over httpx.

client = Client("http://127.0.0.1:8000")
nuclei = client.segment("tile.png", mpp=0.5)
print(nuclei["summary"]["counts"])
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

MEDIA_TYPES = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"II", "image/tiff"), (b"MM", "image/tiff"))
GEOJSON = "application/geo+json"


class ServiceError(Exception):
    """The service said no, or was not there.

    Attributes:
        status: HTTP status; 0 if there was no answer.
        slug: last part of the problem's type, such as `invalid-image`; empty if there was none.
        request_id: under which the service's log knows more.
        retry_after_s: seconds after which it is worth asking again, if it said so.
    """

    def __init__(self, detail: str, status: int = 0, slug: str = "", request_id: str = "", retry: int | None = None):
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.request_id = request_id
        self.retry_after_s = retry


class Client:
    """A connection to one service; use it as a context manager, or call `close`."""

    def __init__(self, base_url: str = "http://127.0.0.1:8000", api_key: str | None = None, timeout_s: float = 60.0):
        """No request is made yet.

        Args:
            base_url: where the service listens.
            api_key: sent with every request.
            timeout_s: longest silence of the service.
        """
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def segment(
        self,
        image: str | Path | bytes,
        mpp: float | None = None,
        profile: str | None = None,
        model: str | None = None,
    ) -> dict[str, Any]:
        """The nuclei of an image as a GeoJSON feature collection.

        Args:
            image: a PNG, JPEG or TIFF: its path, or its bytes.
            mpp: um per pixel.
            profile: fast or accurate.
            model: NAME or NAME@VERSION.

        Raises:
            ServiceError: with the service's reason.
            OSError: if the file cannot be read.
        """
        answer: dict[str, Any] = self.fetch(image, GEOJSON, mpp, profile, model).json()
        return answer

    def fetch(
        self,
        image: str | Path | bytes,
        accept: str,
        mpp: float | None = None,
        profile: str | None = None,
        model: str | None = None,
    ) -> httpx.Response:
        """The same in any form that the service writes, such as `image/png` or `text/csv`; body and headers."""
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        given = {"mpp": mpp, "profile": profile, "model": model}
        params = {name: value for name, value in given.items() if value is not None}
        headers = {"Accept": accept, "Content-Type": media_type(data)}
        return self._request("POST", "/v1/segment", content=data, params=params, headers=headers)

    def models(self) -> list[dict[str, Any]]:
        """The models that requests can name.

        Raises:
            ServiceError: with the service's reason.
        """
        entries: list[dict[str, Any]] = self._request("GET", "/v1/models").json()["models"]
        return entries

    def ready(self) -> bool:
        """Whether the service takes requests now; False also if nobody answers."""
        try:
            self._request("GET", "/healthz/ready")
        except ServiceError:
            return False
        return True

    def _request(self, method: str, path: str, **parts: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **parts)
        except httpx.HTTPError as error:
            raise ServiceError(f"no answer from {self._http.base_url}: {error}") from error
        if response.is_error:
            raise refused(response)
        return response


def media_type(data: bytes) -> str:
    """What the first bytes say; the service names the formats it reads if they say nothing."""
    return next((kind for magic, kind in MEDIA_TYPES if data.startswith(magic)), "application/octet-stream")


def refused(response: httpx.Response) -> ServiceError:
    """The error that a response stands for."""
    if response.headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        return ServiceError(f"status {response.status_code} from something that is not Karyon", response.status_code)
    problem = response.json()
    return ServiceError(
        problem["detail"],
        problem["status"],
        problem["type"].rpartition(":")[2],
        problem["instance"],
        problem.get("retry_after_seconds"),
    )
