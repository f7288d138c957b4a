"""The real server on a loopback port: start, hanging up, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.client import Client, ServiceError
from app.main import create_app
from app.server import LAST_CALL_S, Server
from tests.drawn import draw_tissue

PATIENCE_S = 60


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


class Valve:
    """An engine that can be closed: batches then wait until it is opened again."""

    def __init__(self, engine) -> None:
        self.engine, self.open, self.batches, self.ended = engine, threading.Event(), 0, threading.Event()
        self.open.set()

    def predict(self, patches):
        self.batches += 1
        end = time.monotonic() + PATIENCE_S
        while not self.open.wait(0.01):
            assert time.monotonic() < end
            if self.ended.is_set():
                raise RuntimeError("Exiting due to terminate flag being set to true.")
        return self.engine.predict(patches)

    def terminate(self):
        self.ended.set()

    def resume(self):
        self.ended.clear()


def ask(address: str, png: bytes) -> httpx.Response:
    return httpx.post(f"{address}/v1/segment", params={"mpp": 0.5}, content=png, timeout=PATIENCE_S)


@contextmanager
def serving(app, shutdown_s: int | None = None) -> Iterator[tuple[Server, str]]:
    """The application under its own server in a thread, and its address."""
    limit = None if shutdown_s is None else shutdown_s + LAST_CALL_S
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=limit)
    server = Server(config, app.state.services.lifecycle, 0.0, app.state.services.runner.abort)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the server")
        host, port = server.servers[0].sockets[0].getsockname()
        app.state.services.lifecycle.wait_started(PATIENCE_S)
        yield server, f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture
def valve(ink) -> Valve:
    return Valve(ink)


@pytest.fixture
def app(settings, valve):
    return create_app(settings, lambda artifact, provider, threads: valve)


def test_the_client_gets_nuclei_models_and_reasons(app, png, tmp_path):
    (tmp_path / "tile.png").write_bytes(png)
    with serving(app) as (_, address), Client(address) as client:
        assert client.ready()
        assert client.segment(tmp_path / "tile.png", mpp=0.5)["summary"]["total"] == 132
        assert [m["name"] for m in client.models()] == ["ink"]
        with pytest.raises(ServiceError, match="accepted") as refusal:
            client.segment(png, mpp=50)
        assert (refusal.value.status, refusal.value.slug) == (422, "invalid-parameter")


def test_a_client_without_a_server_says_so():
    with Client("http://127.0.0.1:9") as client:
        assert not client.ready()
        with pytest.raises(ServiceError, match="no answer"):
            client.models()


def test_queued_work_of_a_caller_who_hung_up_never_runs(app, png, valve):
    room = app.state.services.room
    with serving(app) as (_, address), httpx.Client(base_url=address, timeout=PATIENCE_S) as patient:
        before = valve.batches
        valve.open.clear()
        first = threading.Thread(target=patient.post, args=("/v1/segment",), kwargs={"content": png})
        first.start()
        wait_for(lambda: valve.batches == before + 1, "the first request to run")
        with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=address, timeout=0.5) as hasty:
            hasty.post("/v1/segment", content=png)
        wait_for(lambda: room.inside == 1, "the second request to give its place back")
        valve.open.set()
        first.join(PATIENCE_S)
        assert valve.batches == before + 1
        assert patient.post("/v1/segment", content=png).status_code == 200


def test_a_killed_socket_ends_the_batch_that_nobody_waits_for_with_all_middleware_installed(settings, valve, png):
    settings = settings.model_copy(update={"cors_origins": ("https://viewer.example.org",)})
    app = create_app(settings, lambda artifact, provider, threads: valve)
    services = app.state.services
    with serving(app) as (server, address):
        valve.open.clear()
        before = valve.batches
        kill_while(lambda: valve.batches > before, server.servers[0].sockets[0].getsockname(), png)
        wait_for(lambda: not services.runner.stalled_s(), "the batch to be ended")
        assert (services.budget.held, services.room.inside, valve.open.is_set()) == (0, 0, False)
        valve.open.set()
        assert ask(address, png).status_code == 200


def kill_while(condition: Callable[[], object], where: tuple[str, int], png: bytes) -> None:
    """Send a request and reset its connection once the condition holds."""
    head = f"POST /v1/segment HTTP/1.1\r\nHost: karyon\r\nContent-Length: {len(png)}\r\n\r\n".encode()
    with socket.create_connection(where) as caller:
        caller.sendall(head + png)
        wait_for(condition, "the request to run")
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_body_above_the_limit_gets_its_answer(settings, valve):
    app = create_app(settings.model_copy(update={"max_bytes": 1000}), lambda artifact, provider, threads: valve)
    with serving(app) as (_, address):
        answer = httpx.post(f"{address}/v1/segment", content=bytes(200_000))
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:karyon:problem:payload-too-large")


def test_a_socket_over_which_a_body_stops_coming_gets_its_answer_and_is_closed(settings, valve, png):
    app = create_app(settings.model_copy(update={"stall_s": 0.2}), lambda artifact, provider, threads: valve)
    with serving(app) as (server, _), socket.create_connection(server.servers[0].sockets[0].getsockname()) as caller:
        caller.settimeout(PATIENCE_S)
        head = f"POST /v1/segment HTTP/1.1\r\nHost: karyon\r\nContent-Length: {len(png)}\r\n\r\n".encode()
        caller.sendall(head + png[:100])
        answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:karyon:problem:request-timeout" in answer


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/slides?filename=a.svs"])
def test_a_caller_who_hangs_up_while_sending_is_no_error(settings, valve, capfd, path):
    app = create_app(settings, lambda artifact, provider, threads: valve)
    metrics = app.state.services.metrics
    with serving(app) as (server, _):
        with socket.create_connection(server.servers[0].sockets[0].getsockname()) as caller:
            caller.sendall(f"POST {path} HTTP/1.1\r\nHost: karyon\r\nContent-Length: 1000\r\n\r\nhalf".encode())
        wait_for(lambda: b'outcome="cancelled"' in metrics.exposition(), "the request to be given up")
    assert "unexpected error" not in capfd.readouterr().err


SERVE = (sys.executable, "-m", "app.cli", "serve", "--port", "0")


@contextmanager
def process(
    store: Path, command: Sequence[str] = SERVE, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`karyon serve` as a process, ready; and its address."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("KARYON_")}
    env |= {"KARYON_MODEL_STORE": str(store), "KARYON_MODEL": "dark", "KARYON_THREADS": "1"}
    env |= {
        "KARYON_DRAIN_DELAY_S": "0",
        "KARYON_CALIBRATION_S": "0",
        "KARYON_CACHE": str(store / ".cache"),
    } | environment
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = ""
            for text in server.stderr:
                line = json.loads(text)
                if line["event"] == "listening":
                    address = f"http://{line['host']}:{line['port']}"
                if line["event"] == "ready":
                    break
            yield server, address
        finally:
            server.kill()


def test_sigterm_lets_running_work_finish(app, png, valve):
    answers = []
    with serving(app) as (server, address):
        valve.open.clear()
        before = valve.batches
        asking = threading.Thread(target=lambda: answers.append(ask(address, png)))
        asking.start()
        wait_for(lambda: valve.batches > before, "the request to run")
        server.handle_exit(signal.SIGTERM, None)
        assert app.state.services.lifecycle.state == "draining"
        valve.open.set()
        asking.join(PATIENCE_S)
    assert [answer.status_code for answer in answers] == [200]


def test_who_is_not_answered_when_time_is_up_is_told_so_whether_queued_or_running(app, png, valve):
    answers: dict[str, httpx.Response] = {}
    with serving(app, shutdown_s=0) as (server, address):
        valve.open.clear()
        before = valve.batches
        running = threading.Thread(target=lambda: answers.update(running=ask(address, png)))
        running.start()
        wait_for(lambda: valve.batches > before, "the first request to run")
        queued = threading.Thread(target=lambda: answers.update(queued=ask(address, png)))
        queued.start()
        wait_for(lambda: app.state.services.budget.held == 8, "the second request to be queued")
        server.handle_exit(signal.SIGTERM, None)
        for asking in (queued, running):
            asking.join(PATIENCE_S)
    assert {name: answer.status_code for name, answer in answers.items()} == {"running": 503, "queued": 503}
    assert {answer.json()["type"] for answer in answers.values()} == {"urn:karyon:problem:draining"}


def test_what_fits_into_the_time_is_finished_to_its_end(app, png, valve):
    answers = []
    with serving(app, shutdown_s=PATIENCE_S) as (server, address):
        valve.open.clear()
        before = valve.batches
        asking = [threading.Thread(target=lambda: answers.append(ask(address, png))) for _ in range(4)]
        for one in asking:
            one.start()
        wait_for(lambda: valve.batches > before and app.state.services.budget.held == 16, "one to run, three to wait")
        server.handle_exit(signal.SIGTERM, None)
        valve.open.set()
        for one in asking:
            one.join(PATIENCE_S)
    assert [answer.status_code for answer in answers] == [200] * 4


def test_a_signal_in_the_middle_of_a_threads_start_is_taken_too(app, png, monkeypatch):
    with serving(app) as (server, _):
        with monkeypatch.context() as starting:
            starting.setattr(threading.Thread, "start", None)  # its lock is not to be had twice
            server.handle_exit(signal.SIGTERM, None)
        wait_for(lambda: server.should_exit, "the server to leave")
    assert server.force_exit is False


def test_after_sigterm_a_process_is_unready_and_serves_on_for_a_moment(onnx_store, png):
    with process(onnx_store, KARYON_DRAIN_DELAY_S="3") as (server, address):
        server.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{address}/healthz/ready").status_code == 503, "the process to be unready")
        assert ask(address, png).status_code == 200
        assert server.wait(PATIENCE_S) == 0


def test_a_process_answers_probes_on_a_port_of_their_own(onnx_store):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with process(onnx_store, KARYON_ADMIN_PORT=str(port)) as (server, _):
        assert httpx.get(f"http://127.0.0.1:{port}/healthz/live").status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0


def test_sigterm_under_load_fails_nobody_who_came_in_time(onnx_store, png):
    answers: list[tuple[float, int]] = []

    def keep_asking(address: str) -> None:
        status = 1
        while status:
            began = time.monotonic()
            try:
                status = ask(address, png).status_code
            except httpx.TransportError:  # once the socket is closed; sooner, it is a failure
                status = 0
            answers.append((began, status))

    with process(onnx_store, KARYON_DRAIN_DELAY_S="3") as (server, address):
        askers = [threading.Thread(target=keep_asking, args=(address,)) for _ in range(4)]
        askers.append(threading.Thread(target=lambda: deque(server.stderr, 0)))  # a full pipe would stop the service
        for asker in askers:
            asker.start()
        wait_for(lambda: sum(status == 200 for _, status in answers) > 4, "the load")
        signalled = time.monotonic()
        server.send_signal(signal.SIGTERM)
        for asker in askers:
            asker.join(PATIENCE_S)
        assert server.wait(PATIENCE_S) == 0
    assert {status for began, status in answers if began < signalled + 2} == {200}
    assert any(began > signalled for began, status in answers if status == 200)


HANGING = """
import sys, threading
from app.main import serve
from app.settings import load_settings
from tests.drawn import InkEngine

class Hanging(InkEngine):
    def predict(self, patches):
        if (patches[:, 0, 0] == 7).all():
            threading.Event().wait()
        return super().predict(patches)

sys.exit(serve(load_settings(), lambda artifact, provider, threads: Hanging()))
"""


def test_a_run_that_hangs_makes_the_process_dead_to_probes_and_ends_it_with_status_70(store, encoded):
    poison = draw_tissue(256, 256)
    poison[0, 0] = 7
    settings = {"KARYON_MODEL": "ink", "KARYON_HANG_S": "5", "KARYON_PORT": "0"}
    with process(store, (sys.executable, "-c", HANGING), **settings) as (server, address):
        threading.Thread(target=hang, args=(address, encoded(poison)), daemon=True).start()
        lived = []
        with suppress(httpx.TransportError):
            while server.poll() is None:
                lived.append(httpx.get(f"{address}/healthz/live", timeout=PATIENCE_S).status_code)
                time.sleep(0.05)
        assert server.wait(PATIENCE_S) == 70
    assert (lived[0], lived[-1]) == (200, 503)


def hang(address: str, poison: bytes) -> None:
    with suppress(httpx.TransportError):
        ask(address, poison)


def test_sigterm_ends_the_process_with_status_0(onnx_store, png):
    with process(onnx_store) as (server, address):
        assert ask(address, png).json()["summary"]["total"] == 132
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0


def test_the_process_logs_nothing_but_json(onnx_store, png):
    with process(onnx_store) as (server, address):
        ask(address, png)
        server.send_signal(signal.SIGTERM)
        lines = [json.loads(text) for text in server.stderr]
    assert any(line["event"] == "request" for line in lines)
