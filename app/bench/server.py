"""Which service is measured? One of its own on a free loopback port, or one that runs on this machine already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.settings import is_loopback

SERVE = (sys.executable, "-m", "app.cli", "serve", "--host", "127.0.0.1", "--port", "0")
TO_START_S = 180.0
TO_STOP_S = 90.0
LOOK_S = 0.05


class BenchRefused(Exception):
    """Nothing is measured: the target is not on this machine, or the service did not start."""


@dataclass(frozen=True)
class Server:
    """A service as a process of its own, and its address."""

    process: subprocess.Popen[bytes]
    address: str

    def stop(self) -> int:
        """End it as a supervisor would; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TO_STOP_S)


def local(url: str) -> str:
    """An address on loopback, without a path.

    Raises:
        BenchRefused: it is not http, or another machine: load is for one's own.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise BenchRefused(f"{url} is no http address")
    if not is_loopback(parts.hostname):
        raise BenchRefused(f"{parts.hostname} is not this machine: load is put on loopback addresses only")
    return f"http://{parts.netloc}"


@contextmanager
def own_server(folder: Path, command: Sequence[str] = SERVE, **settings: str) -> Iterator[Server]:
    """A service that is ready; ended at the end, if it has not ended by then.

    Args:
        folder: for its log, what it measures at its start, and its store: the caller's is not touched.
        command: starts it; must log as `karyon serve` does.
        settings: further environment, such as KARYON_THREADS; the caller's own stays.

    Raises:
        BenchRefused: with its last words.
    """
    own = {"KARYON_CACHE": str(folder / "cache"), "KARYON_SLIDE_FOLDER": str(folder / "slides"), "KARYON_STORE_URL": ""}
    own["KARYON_CACHE_BYTES"] = "0"  # the same tiles come again and again
    environment = dict(os.environ) | own | settings
    path = folder / f"server-{time.monotonic_ns()}.log"  # a pipe that nobody empties would stop the service
    with path.open("wb") as log, subprocess.Popen(command, env=environment, stderr=log, stdout=log) as process:
        try:
            yield Server(process, wait_until_ready(process, path))
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(TO_STOP_S)
        finally:
            if process.poll() is None:
                process.kill()


def wait_until_ready(process: subprocess.Popen[bytes], path: Path) -> str:
    """The address of a service, once its log says that it is ready.

    Raises:
        BenchRefused: it ended, failed or took too long.
    """
    end = time.monotonic() + TO_START_S
    while time.monotonic() < end:
        lines = [facts(text) for text in path.read_text().splitlines()]
        events: Mapping[str, Any] = {line["event"]: line for line in lines}
        if {"ready", "listening"} <= events.keys():
            return f"http://{events['listening']['host']}:{events['listening']['port']}"
        wrong = next((line for line in lines if line.get("level") == "error"), None)
        if wrong or process.poll() is not None:
            said = wrong or (lines[-1] if lines else {})
            raise BenchRefused(f"the service did not start: {said.get('reason') or said.get('event', 'no word why')}")
        time.sleep(LOOK_S)
    raise BenchRefused(f"the service was not ready after {TO_START_S:g} s")


def facts(text: str) -> dict[str, Any]:
    """One line of the service's log; what is no JSON was said before logging was set up."""
    try:
        line: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"event": text}
    return line
