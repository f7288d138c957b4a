"""A process that cannot start says why, and one that is stopped while it starts ends well."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

PATIENCE_S = 60
SERVE = (sys.executable, "-m", "app.cli", "serve", "--port", "0")


def test_sigterm_while_the_model_is_brought_up_ends_the_process_with_status_0(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("KARYON_")}
    env |= {"KARYON_DRAIN_DELAY_S": "0", "KARYON_CACHE": str(tmp_path)}
    with subprocess.Popen(SERVE, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert any(json.loads(text)["event"] == "listening" for text in server.stderr)
        time.sleep(0.2)  # ONNX Runtime is at work
        server.send_signal(signal.SIGTERM)
        events = [json.loads(text)["event"] for text in server.stderr]
    assert (server.returncode, "ready" in events) == (0, False)


def test_a_port_that_is_taken_stops_the_start():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [*SERVE[:-1], str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    reason = f"karyon: [Errno {errno.EADDRINUSE}] cannot listen on 127.0.0.1, port {port}: Address already in use"
    assert (done.returncode, done.stderr.strip()) == (2, reason)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"KARYON_MAX_BITES": "5"}, "no such setting: KARYON_MAX_BITES"),
        ({"KARYON_HOST": "0.0.0.0"}, "KARYON_API_KEYS"),
        ({"KARYON_PORT": "many"}, "KARYON_PORT"),
        ({"KARYON_TRUSTED_PROXIES": "everybody"}, "KARYON_TRUSTED_PROXIES"),
        ({"KARYON_CORS_ORIGINS": "here"}, "KARYON_CORS_ORIGINS"),
    ],
)
def test_a_wrong_setting_stops_the_start(environment, reason):
    command = [sys.executable, "-m", "app.cli", "serve"]
    env = os.environ | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, reason in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {"KARYON_MODEL": "nobody"},
            "KARYON_MODEL: there is no model called 'nobody'; there are karyon-large, karyon-lite",
        ),
        ({"KARYON_MODEL": "karyon-lite@99"}, "KARYON_MODEL: model karyon-lite has no version '99'"),
        ({"KARYON_MODEL_STORE": "/nowhere"}, "KARYON_MODEL_STORE: there is no folder /nowhere"),
    ],
)
def test_a_model_that_is_not_there_stops_the_start(environment, reason):
    env = {k: v for k, v in os.environ.items() if not k.startswith("KARYON_")} | environment
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, reason in done.stderr, "Traceback" in done.stderr) == (4, True, False)
