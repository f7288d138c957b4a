"""A service that is killed in the middle of a slide job, again and again, ends with what an undisturbed one has."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tifffile
from sqlalchemy import func, select

from app.slides.database import Database
from app.slides.reading import list_tiles, tile_nuclei
from app.slides.schema import payloads, tiles
from tests.drawn import draw_tissue

PATIENCE_S = 120
ENDED = ("done", "failed", "cancelled")


@contextmanager
def server(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A real process, and a client of it."""
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = (json.loads(line) for line in process.stderr if line.startswith("{"))
            said = {line["event"]: line for line in until_ready(lines)}
            threading.Thread(target=lambda: deque(process.stderr, 0), daemon=True).start()  # or the pipe fills up
            address = f"http://127.0.0.1:{said['listening']['port']}"
            with httpx.Client(base_url=address, timeout=PATIENCE_S) as http:
                yield process, http
        finally:
            process.kill()


def until_ready(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    heard = set()
    for line in lines:
        yield line
        heard.add(line["event"])
        if {"listening", "ready"} <= heard:
            return
    pytest.fail("the server ended before it was ready")


def ended(http: httpx.Client, job: str) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while (state := http.get(job).json())["state"] not in ENDED:
        assert time.monotonic() < end, state
        time.sleep(0.05)
    return dict(state)


def start(http: httpx.Client, name: str) -> tuple[str, str]:
    slide = http.post("/v1/slides", json={"path": name, "mpp": 0.5}).headers["location"]
    return slide[-32:], http.post(f"{slide}/jobs").headers["location"]


def content(url: str, slide: str) -> list[Any]:
    """All that is kept of a slide, but for row numbers and times."""
    database = Database.open(url)
    try:
        found = [(each, tile_nuclei(database, each.id)) for each in list_tiles(database, slide)]
        with database.read() as connection:
            assert connection.execute(select(func.count()).select_from(payloads)).scalar_one() == (
                connection.execute(select(func.count()).select_from(tiles)).scalar_one()
            )
        return [
            (
                tile.place,
                tile.content_sha256,
                tile.counts,
                tile.cut,
                part.flags.tobytes(),
                part.nuclei.centroid.tobytes(),
            )
            for tile, part in found
        ]
    finally:
        database.close()


@pytest.fixture
def environment(onnx_store: Path, tmp_path: Path, side: int) -> dict[str, str]:
    (tmp_path / "root").mkdir()
    image = draw_tissue(side, side, seed=9)
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / "root" / name, image, tile=(256, 256), photometric="rgb")
    own = {
        "MODEL_STORE": onnx_store,
        "MODEL": "dark",
        "THREADS": 1,
        "CALIBRATION_S": 0,
        "CACHE": tmp_path / "cache",
        "SLIDE_FOLDER": tmp_path / "slides",
        "SLIDE_ROOT": tmp_path / "root",
        "SLIDE_WINDOW": 64,
        "DRAIN_DELAY_S": 0,
    }
    return dict(os.environ) | {f"KARYON_{name}": str(value) for name, value in own.items()}


def kill_at(process: subprocess.Popen[str], http: httpx.Client, job: str, done: int) -> int:
    """Kill the process once so many windows are done; how many the last answer said."""
    end = time.monotonic() + PATIENCE_S
    while (state := http.get(job).json())["done"] < done and state["state"] not in ENDED:
        assert time.monotonic() < end, state
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)
    return int(state["done"])


@pytest.mark.parametrize(("kills", "side"), [(3, 1100), pytest.param(20, 2200, marks=pytest.mark.slow)])
def test_a_killed_job_ends_with_what_an_undisturbed_one_has(environment, tmp_path, kills):
    rng, url = random.Random(kills), f"sqlite:///{tmp_path}/slides/store.sqlite"
    with server(environment) as (process, http):
        undisturbed, job = start(http, "a.tif")
        total = ended(http, job)["total"]
        moments = sorted(rng.sample(range(total - 4), kills))
        slide, job = start(http, "b.tif")
        seen = [kill_at(process, http, job, moments[0])]
    for moment in moments[1:]:
        with server(environment) as (process, http):
            seen.append(kill_at(process, http, job, moment))
    with server(environment) as (process, http):
        state = ended(http, job)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert seen[0] < total
    assert (state["state"], state["done"], state["total"]) == ("done", total, total)
    assert content(url, slide) == content(url, undisturbed)
