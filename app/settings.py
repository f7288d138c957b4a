"""What can an operator turn, what are the defaults, and which settings are refused?

Every setting is an environment variable with the prefix `KARYON_`. Nothing is read at import: `load_settings` reads
the environment once, and a variable that no setting answers to stops the start instead of being ignored.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "KARYON_"
LET_PASS = frozenset({"KARYON_DATA", "KARYON_GOLDEN"})  # where tests and training find their data
PILLOW_WARNS_ABOVE = 89_478_485  # pixels; beyond it the decoder's own alarm goes off


Rights = Literal["all", "read"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ApiKey(NamedTuple):
    """One key that opens the service: the caller's id, the SHA-256 of the key in lower-case hexadecimal, and what it
    may do: all, or read what is kept.
    """

    id: str
    sha256: str
    rights: Rights = "all"


class Settings(BaseSettings):
    """Everything that can be set, with its default and its bounds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on; a public one needs API keys")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one and logs it")
    admin_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="further port, on loopback, for probes and metrics that no load can block; 0: none",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line to log")

    model_store: Path | None = Field(None, description="folder of models; unset: the one that comes with the package")
    model: str = Field("karyon-lite", description="model that serves when a request names none: NAME or NAME@VERSION")
    profile: Literal["fast", "accurate"] | None = Field(
        None, description="views averaged when a request names none; unset: accurate on a GPU, fast on a CPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models run; cuda refuses to serve without a GPU, auto takes one if there is one"
    )
    precision: Literal["auto", "float32", "float16", "int8"] = Field(
        "auto",
        description="of networks; auto: on a GPU float16 where a model gives its golden maps in it, else float32; "
        "int8: on a CPU where a model gives its golden maps in that, else float32",
    )
    gpu_memory: int | None = Field(
        None, ge=2**28, description="bytes of the GPU that one model may take; unset: as much as there is"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; unset: as many as the cgroup allows")
    models_in_memory: int = Field(2, ge=1, le=64, description="models held at once; the least used one leaves first")
    calibration_s: float = Field(
        3.0, ge=0, le=600, description="seconds in which the size of batches is measured when a model is loaded"
    )
    cache: Path | None = Field(
        None, description="folder that keeps measured batch sizes; unset: karyon in the user's cache folder"
    )
    cache_bytes: int = Field(
        0, ge=0, description="memory for answers to images that the same caller sent before, bulk excepted; 0: none"
    )
    slide_folder: Path | None = Field(
        None, description="folder of uploaded slides and of the store; unset: karyon in the user's data folder"
    )
    store_url: str | None = Field(
        None,
        repr=False,
        pattern=r"^(sqlite:///|postgresql://).",
        description="database of slides and results, sqlite:///FILE or postgresql://...; unset: a file in that folder",
    )
    slide_root: Path | None = Field(
        None, description="folder of slides that callers may name by path, read only; unset: they may not"
    )
    slide_max_bytes: int = Field(16 * 2**30, ge=1, description="bytes an uploaded slide file may have")
    store_quota: int | None = Field(
        None, ge=1, description="bytes that uploads and results may take; unset: all but 256 MiB of the disk"
    )
    dicomweb_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#@]+$",
        description="DICOMweb archive to which `karyon dicom --store` sends results, such as "
        "https://pacs.example.org/dicom-web; no request can name another",
    )
    dicomweb_token: str | None = Field(
        None, repr=False, min_length=1, description="bearer token for that archive; needs https, or loopback"
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="days after its last change that a slide is deleted with its results; unset: never",
    )
    slide_window: int = Field(
        1280, ge=64, le=16384, description="side of the windows in which slide jobs work, pixels at the model's scale"
    )
    slide_windows_at_once: int = Field(2, ge=1, le=64, description="windows of a slide job that are in work at once")
    slide_jobs_at_once: int = Field(1, ge=1, le=64, description="slide jobs that are in work at once")
    view_cache_bytes: int = Field(
        128 * 2**20, ge=0, description="bytes of nuclei and overlay tiles kept ready for viewers"
    )
    outlines_to: int = Field(
        4,
        ge=4,
        le=32,
        description="pixels of a slide per pixel on the screen up to which outlines are drawn; beyond: density",
    )
    viewport_nuclei: int = Field(10_000, ge=1, description="nuclei that one request for a viewport may have")
    bulk_at_once: int = Field(32, ge=1, le=1024, description="images of bulk requests that are in work at once")

    postprocess_workers: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="processes that separate nuclei, at most as many as threads; unset: as many; 0: none, a crash in "
        "native code then ends the service",
    )

    max_bytes: int = Field(64 * 2**20, ge=1, description="bytes a request body may have")
    max_bytes_held: int = Field(
        512 * 2**20, ge=1, description="bytes of all bodies together that are being received or used"
    )
    stall_s: float = Field(
        60.0, gt=0, description="seconds without a byte after which the rest of a body is not awaited"
    )
    max_pixels: int = Field(
        25_000_000,
        ge=1,
        le=PILLOW_WARNS_ABOVE,
        description="pixels an image may have, as sent and at the model's scale",
    )
    min_mpp: float = Field(0.1, gt=0, allow_inf_nan=False, description="finest scale accepted, um per pixel")
    max_mpp: float = Field(2.0, gt=0, allow_inf_nan=False, description="coarsest scale accepted, um per pixel")
    waiting_room: int = Field(64, ge=1, description="requests held at once; the next one is told to come back")
    longest_wait_s: float = Field(
        1.5,
        gt=0,
        description="seconds of work that may be before an interactive request without a deadline of its own; with "
        "more it is told to come back",
    )
    max_batch_tiles: int = Field(512, ge=1, description="images that one request for a batch may have")
    max_queue_cost: float = Field(
        8192.0,
        gt=0,
        allow_inf_nan=False,
        description="work admitted and not answered, in patches of 256 x 256 seen once by one network; bulk: 70 %",
    )
    tenant_cost: float = Field(
        4096.0, gt=0, allow_inf_nan=False, description="the same for one caller: an API key, or an address without keys"
    )
    tenant_rate: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="such work per second that one caller may have done; unset: any"
    )
    drain_delay_s: float = Field(
        5.0, ge=0, le=600, description="seconds that new requests are served after SIGTERM, while already unready"
    )
    hang_s: float | None = Field(
        None, gt=0, le=86400, description="seconds without progress that end the process; unset: 120, on a GPU 30"
    )
    shutdown_s: int = Field(
        45,
        ge=0,
        description="seconds that requests may take to finish after SIGTERM and that delay; 3 s later they are cut off",
    )

    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = Field(
        (),
        description="who may call: comma-separated `id:sha256`, the SHA-256 of each key in hexadecimal; a key with "
        "`:read` behind it may only look at what is kept",
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        description="proxies whose `X-Forwarded-For` tells callers apart: comma-separated addresses or networks",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="web pages elsewhere that may ask from a browser: comma-separated origins, or `*`"
    )
    revision: str = Field(
        "unknown", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="revision of the running code, written into results"
    )
    allow_anonymous: bool = Field(False, description="serve callers without a key even on a public address")

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(_api_key(entry) for entry in value.split(",") if entry.strip())

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ipaddress.ip_network(entry.strip()) for entry in value.split(",") if entry.strip())
        except ValueError:
            raise ValueError("each entry is an address or a network, such as 10.0.0.5 or 10.0.0.0/24") from None

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        origins = (
            tuple(entry.strip() for entry in value.split(",") if entry.strip()) if isinstance(value, str) else value
        )
        if not all(re.fullmatch(r"\*|https?://[^/\s*?#@]+", one) for one in origins):
            raise ValueError("each entry is *, or scheme and host without a path, such as https://viewer.example.org")
        return origins

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.min_mpp > self.max_mpp:
            raise ValueError("KARYON_MIN_MPP is above KARYON_MAX_MPP")
        if not (self.api_keys or self.allow_anonymous or is_loopback(self.host)):
            raise ValueError(
                f"{self.host} can be reached from outside: set KARYON_API_KEYS, or KARYON_ALLOW_ANONYMOUS=true"
            )
        if self.dicomweb_token and not _is_private(self.dicomweb_url or ""):
            raise ValueError("KARYON_DICOMWEB_TOKEN would be sent in clear: KARYON_DICOMWEB_URL must begin with https")
        return self


def _is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _api_key(entry: str) -> ApiKey:
    match = re.fullmatch(r"\s*([A-Za-z0-9._-]{1,64}):([0-9a-fA-F]{64})(:read)?\s*", entry)
    if not match:  # the entry itself may be a key in clear text: it is not repeated
        raise ValueError(
            "each entry of KARYON_API_KEYS reads id:sha256 or id:sha256:read, e.g. ward3:$(printf %s KEY | sha256sum)"
        )
    return ApiKey(match[1], match[2].lower(), "read" if match[3] else "all")


def cache_folder(settings: Settings) -> Path:
    """Where measurements are kept between starts."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (settings.cache or home / "karyon").expanduser()


def slide_folder(settings: Settings) -> Path:
    """Where uploaded slides are kept, and the store if no other database is named."""
    home = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share")
    return (settings.slide_folder or home / "karyon").expanduser()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def strangers(env: Iterable[str]) -> list[str]:
    """Names in `env` that look like settings of Karyon and are none, sorted."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | LET_PASS
    return sorted(name for name in env if name.upper().startswith(PREFIX) and name.upper() not in known)


def load_settings(env: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """The settings of this process; command-line values in `given` win over the environment.

    Args:
        env: names to look for misspelt settings in; the environment of the process if None.

    Raises:
        SystemExit: naming each misspelt or invalid setting, never its value.
    """
    if unknown := strangers(os.environ if env is None else env):
        raise SystemExit(f"no such setting: {', '.join(unknown)}")
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SystemExit("\n".join(_complaints(error))) from None


def _complaints(error: ValidationError) -> list[str]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    names = [f"{PREFIX}{e['loc'][0]}".upper() if e["loc"] else "settings" for e in found]
    return [f"{name}: {e['msg'].removeprefix('Value error, ')}" for name, e in zip(names, found, strict=True)]


def settings_table() -> str:
    """All settings as a Markdown table: variable, default, meaning."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{str(field.default).lower()}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(settings_table())
