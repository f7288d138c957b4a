"""The five commands of training/README.md lead from a data set to a served model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.training.layouts import write_lizard

PROJECT = Path(__file__).parents[2]
CONFIG = """
name = "lite"
network = "lite-narrow"
threads = 2
workers = 0
[data]
sources = ["glas"]
validation = 0.34
crop = 64
crops_per_epoch = 8
[recipe]
epochs = 1
batch = 4
"""


def commands() -> list[str]:
    """The first block of the guide, a command a line."""
    text = (PROJECT / "training" / "README.md").read_text()
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block[1].strip().splitlines()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder with a small data set and a short run's config."""
    write_lizard(tmp_path / "data" / "lizard", [f"glas_{i}" for i in range(6)] + ["consep_1", "consep_2"], (256, 256))
    config = tmp_path / "training" / "configs" / "lite.toml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG)
    return tmp_path


def test_the_five_commands_of_the_guide_work_as_they_stand(home: Path) -> None:
    own = {"KARYON_DATA": str(home / "data"), "KARYON_MODEL_STORE": str(home / "model_store"), "KARYON_PORT": "0"}
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, **own, "PYTHONPATH": str(PROJECT), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    *learn, serve = commands()
    assert len(learn) == 4
    for command in learn:
        done = subprocess.run(
            command, shell=True, cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    assert "95 % interval" in (home / "model_store" / "my-model" / "1" / "MODEL_CARD.md").read_text()
    with subprocess.Popen(
        f"exec env {serve}", shell=True, cwd=home, env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert [m["name"] for m in _models(server)] == ["my-model"]
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode == 0


def _models(server: subprocess.Popen[str]) -> list[dict[str, object]]:
    assert server.stderr is not None
    address = next(json.loads(line) for line in server.stderr if '"listening"' in line)
    base = f"http://{address['host']}:{address['port']}"
    for _ in range(600):
        if httpx.get(f"{base}/healthz/ready").status_code == 200:
            break
        time.sleep(0.2)
    models: list[dict[str, object]] = httpx.get(f"{base}/v1/models").json()["models"]
    return models
