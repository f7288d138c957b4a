"""A real Ray cluster, its head a process of its own, so that Ray's settings and warnings stay there."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest

from app.nuclei.artifact import active_version, default_store

PROJECT = Path(__file__).parents[2]
START_S = 180.0


def ray_environment() -> dict[str, str]:
    """What deploy/ray/ray.env sets."""
    lines = shlex.split((PROJECT / "deploy/ray/ray.env").read_text(), comments=True)
    return dict(line.split("=", 1) for line in lines)


class Cluster:
    """A cluster with one deployment at most; `url` is its proxy's."""

    def __init__(self, store: Path, log: Path) -> None:
        port, statistics, metrics = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "KARYON_ALLOW_ANONYMOUS": "true",
            "KARYON_MODEL_STORE": str(store),
            "KARYON_SLIDE_FOLDER": str(store.parent / "slides"),
            "KARYON_CALIBRATION_S": "0.5",
            "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "PYTHONPATH": str(PROJECT),
        }
        self._log = log
        with log.open("w") as errors:
            self._start(port, settings, errors)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            assert self._answer() == "up"
        except BaseException:
            self.close()
            raise

    def _start(self, port: int, settings: dict[str, str], errors: IO[str]) -> None:
        self.head = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.head", str(port)],
            cwd=PROJECT,
            env=os.environ | ray_environment() | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def deploy(self, model: str, **changes: object) -> str:
        """Serve a model by two replicas of one thread each; "served", or "refused" and why."""
        return self.tell({"model": model, "gpus": 0, "cpus": 1, "replicas": 2} | changes)

    def tell(self, wanted: dict[str, Any]) -> str:
        """Bring the cluster to what is wanted, see `tests.cluster.head`."""
        assert self.head.stdin is not None
        self.head.stdin.write(json.dumps(wanted) + "\n")
        self.head.stdin.flush()
        return self._answer()

    def replicas(self) -> list[int]:
        """Processes that serve; Ray renames them."""
        mine = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if self._is_mine(pid)]
        return sorted(mine)

    def close(self) -> None:
        assert self.head.stdin is not None
        self.head.stdin.close()
        try:
            self.head.wait(START_S)
        except subprocess.TimeoutExpired:
            self.head.kill()
            self.head.wait()
        self._reader.join()
        assert self.head.stdout is not None
        self.head.stdout.close()

    def _is_mine(self, pid: int) -> bool:
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            return b"ServeReplica:karyon" in title and self.head.pid in ancestors(pid)
        except OSError:
            return False

    def _read(self) -> None:
        assert self.head.stdout is not None
        for line in self.head.stdout:
            if line.startswith(("up", "served", "refused")):
                self._lines.put(line.strip())
        self._lines.put("ended")

    def _answer(self) -> str:
        answer = self._lines.get(timeout=START_S)
        if answer == "ended":
            raise ChildProcessError(self._log.read_text()[-4000:])
        return answer


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_until(true: Callable[[], bool], within_s: float) -> None:
    """Fail if it is not so in time."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def ancestors(pid: int) -> list[int]:
    """Parent, its parent and so on."""
    found: list[int] = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        found.append(pid)
    return found


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """karyon-lite in versions 1 and 2, which differ in name alone, and 3, whose weights are not what they were."""
    store = tmp_path_factory.mktemp("cluster") / "store"
    shipped, home = default_store() / "karyon-lite", store / "karyon-lite"
    for version in ("1", "2", "3"):
        shutil.copytree(shipped / active_version(default_store(), "karyon-lite"), home / version)
        manifest = json.loads((home / version / "manifest.json").read_text()) | {"version": version}
        (home / version / "manifest.json").write_text(json.dumps(manifest))
    (home / "ACTIVE").write_text("1\n")
    graph = next((home / "3").glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    return store


@pytest.fixture(scope="package")
def cluster(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: make test-cluster brings it")
    one = Cluster(store, tmp_path_factory.mktemp("ray") / "stderr")
    try:
        yield one
    finally:
        one.close()
