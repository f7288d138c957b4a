"""The images' recipes: linted, pinned to what the project pins, and started with settings that exist."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from app.settings import Settings, strangers

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
DOCKERFILES = sorted(path for path in DOCKER.glob("Dockerfile*") if path.suffix != ".dockerignore")
SERVING = [DOCKER / "Dockerfile", DOCKER / "Dockerfile.cuda"]


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names(DOCKERFILES))
def test_hadolint_finds_nothing(dockerfile):
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if not hadolint:
        pytest.skip("hadolint is not installed: pip install 'karyon[dev]' brings it where there is a build of it")
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names(DOCKERFILES))
def test_every_variable_of_an_image_is_a_setting(dockerfile):
    assert strangers(re.findall(r"\b(KARYON_\w+)=", dockerfile.read_text())) == []


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names(DOCKERFILES))
def test_an_image_runs_as_a_numbered_user_who_is_not_root(dockerfile):
    assert re.findall(r"^USER (.+)$", dockerfile.read_text(), re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names(DOCKERFILES))
def test_base_images_are_pinned_and_named_in_the_label(dockerfile):
    text = dockerfile.read_text()
    base = re.findall(r"^FROM (\S+:\S+) AS base$", text, re.MULTILINE)
    assert re.fullmatch(r"\S+:\d+\.\d+\.\d+-\S+", base[0])
    assert f'base.name="docker.io/{base[0] if "/" in base[0] else "library/" + base[0]}"' in text


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names(DOCKERFILES))
def test_the_label_tells_the_version_of_the_project(dockerfile):
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in dockerfile.read_text()


@pytest.mark.parametrize("dockerfile", SERVING, ids=names(SERVING))
def test_an_image_that_serves_does_not_start_for_everybody(dockerfile):
    text = dockerfile.read_text()
    host = re.search(r"KARYON_HOST=(\S+)", text)
    assert "KARYON_API_KEYS=" not in re.sub(r"(?m)^#.*$", "", text)
    with pytest.raises(ValueError, match="KARYON_API_KEYS"):
        Settings(host=host[1])


def test_the_cuda_image_is_made_for_the_pinned_runtime():
    pinned = re.search(r"^onnxruntime-gpu==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    text = (DOCKER / "Dockerfile.cuda").read_text()
    assert f"onnxruntime-gpu {pinned[1]}, pinned in constraints.txt, is built for CUDA 13 and cuDNN 9" in text
    pins = (DOCKER / "constraints-cuda.txt").read_text()
    assert "nvidia-cudnn-cu13==9." in pins
    assert "nvidia-cuda-runtime==13." in pins


def test_the_cuda_image_differs_from_the_cpu_image_in_its_device_alone():
    cpu, cuda = (set(path.read_text().splitlines()) for path in SERVING)
    differing = {line for line in cpu ^ cuda if line and not line.startswith("#")}
    of_the_device = (
        r"dependencies /source [cg]pu|constraints-cuda|NVIDIA_|KARYON_DEVICE|image.title|start-period|docker/install.sh"
    )
    assert [line for line in differing if not re.search(of_the_device, line)] == []


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names(DOCKERFILES))
def test_the_builder_is_sent_what_it_copies_and_little_else(dockerfile):
    ignored = dockerfile.with_name(dockerfile.name + ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile.read_text(), re.MULTILINE)
    assert {word.split("/")[0] for words in copied for word in words.split()} - {"."} <= sent
    assert "*" in ignored
    assert ignored == (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()


@pytest.fixture
def probed(monkeypatch):
    """A server that answers 200 to /healthz/ready alone; the last path asked for."""
    asked = []

    class Probe(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/healthz/ready" else 503)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Probe)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("KARYON_ADMIN_PORT", str(server.server_address[1]))
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("probe", "status"), [("ready", 0), ("live", 1)])
def test_the_health_check_says_what_the_probe_says(probed, probe, status):
    check = [sys.executable, "-IS", DOCKER / "healthcheck.py", probe]
    assert subprocess.run(check, capture_output=True, timeout=30, check=False).returncode == status
    assert probed == [f"/healthz/{probe}"]


def test_the_health_check_of_a_service_that_is_not_there_fails(monkeypatch, unused_port):
    monkeypatch.setenv("KARYON_ADMIN_PORT", str(unused_port))
    check = [sys.executable, "-IS", DOCKER / "healthcheck.py"]
    assert subprocess.run(check, capture_output=True, timeout=30, check=False).returncode == 1


@pytest.fixture
def unused_port():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return server.server_address[1]


def test_the_entry_point_lays_the_kernels_where_they_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "image").mkdir()
    (tmp_path / "image/kernel.nbi").write_bytes(b"compiled")
    monkeypatch.setenv("KERNELS", str(tmp_path / "image"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache/kernels"))
    entry = ["sh", DOCKER / "entrypoint.sh", "cat", tmp_path / "cache/kernels/kernel.nbi"]
    assert subprocess.run(entry, capture_output=True, timeout=30, check=True).stdout == b"compiled"


def test_the_entry_point_starts_the_service_even_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERNELS", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file/kernels"))
    done = subprocess.run(["sh", DOCKER / "entrypoint.sh", "echo", "up"], capture_output=True, timeout=30, check=True)
    assert done.stdout == b"up\n"
    assert b"cannot be written" in done.stderr
