"""Many replicas behind one address answer as one service does; nobody notices when one of them goes (SERVING 13.14)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import yaml
from skimage import data

from app.nuclei.types import UInt8
from tests.cluster.conftest import PROJECT, Cluster, wait_until

pytestmark = pytest.mark.cluster

CALLERS = 3
KARYON = Path(sys.executable).with_name("karyon")
PNG = {"Content-Type": "image/png"}


def tissue() -> UInt8:
    image: UInt8 = data.immunohistochemistry()
    return np.ascontiguousarray(image[:256, :256])


def png(image: UInt8) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Cluster:
    assert cluster.deploy("karyon-lite@1") == "served"
    return cluster


class Load:
    """Callers who ask one after the other until told to stop, and what they were told: status and model version."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[int, str]] = []
        self._url, self._body, self._off = url, png(tissue()), threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def _call(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as caller:
            while not self._off.is_set():
                try:
                    answer = caller.post("/v1/segment", params={"mpp": 0.5}, content=self._body, headers=PNG)
                    version = answer.json()["provenance"]["model"]["version"] if answer.is_success else answer.text
                    self.answers.append((answer.status_code, version))
                except httpx.HTTPError as error:
                    self.answers.append((0, repr(error)))

    @contextmanager
    def going_on(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_more(10)
            yield self
            self.wait_for_more(10)
        finally:
            self._off.set()
            for thread in self._threads:
                thread.join()

    def wait_for_more(self, answers: int, within_s: float = 60.0) -> None:
        enough, end = len(self.answers) + answers, time.monotonic() + within_s
        while len(self.answers) < enough:
            assert time.monotonic() < end, self.answers[-3:]
            time.sleep(0.05)

    @property
    def failed(self) -> list[tuple[int, str]]:
        return [answer for answer in self.answers if answer[0] != 200]


def test_a_tile_has_the_same_nuclei_through_the_cluster_as_without_any_service(served: Cluster, tmp_path: Path) -> None:
    (tmp_path / "tile.png").write_bytes(png(tissue()))
    command = ["segment", "tile.png", "--mpp", "0.5", "-o", "tile.geojson"]
    subprocess.run([KARYON, *command], cwd=tmp_path, check=True, capture_output=True)
    alone = json.loads((tmp_path / "tile.geojson").read_text())
    found = httpx.post(served.url + "/v1/segment?mpp=0.5", content=png(tissue()), headers=PNG, timeout=60).json()
    assert found["summary"]["total"] > 0
    assert found["summary"] == alone["summary"]
    assert found["features"] == alone["features"]


def test_errors_come_through_as_problems(served: Cluster) -> None:
    with httpx.Client(base_url=served.url) as caller:
        answers = [
            caller.get("/nothing"),
            caller.post("/v1/segment", content=b"no image", headers=PNG),
            caller.post("/v1/segment?model=none", content=png(tissue()), headers=PNG),
            caller.post("/v1/segment?profile=best", content=png(tissue()), headers=PNG),
        ]
    assert [a.status_code for a in answers] == [404, 415, 404, 422]
    assert {a.headers["content-type"] for a in answers} == {"application/problem+json"}
    assert all(a.json()["status"] == a.status_code for a in answers)


def test_an_answer_has_one_request_id(served: Cluster) -> None:
    answer = httpx.get(served.url + "/v1/models", headers={"X-Request-Id": "ward-3-17"})
    assert answer.headers.get_list("x-request-id") == ["ward-3-17"]


def test_nobody_loses_an_answer_when_a_replica_is_killed(served: Cluster) -> None:
    before = served.replicas()
    assert len(before) == 2
    with Load(served.url).going_on() as load:
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(set(served.replicas()) - {before[0]}) == 2, 120)
    assert load.failed == []


def test_nobody_loses_an_answer_while_another_model_takes_over(served: Cluster) -> None:
    with Load(served.url).going_on() as load:
        assert served.deploy("karyon-lite@2") == "served"
        began = len(load.answers)
        load.wait_for_more(20)
    assert load.failed == []
    assert {version for _, version in load.answers[began + CALLERS :]} == {"2"}


def test_a_model_that_does_not_prove_itself_leaves_the_old_one_serving(served: Cluster) -> None:
    assert served.deploy("karyon-lite@1") == "served"
    with Load(served.url).going_on() as load:
        assert served.deploy("karyon-lite@3").startswith("refused")
        assert len(served.replicas()) == 2
    assert load.failed == []
    assert {version for _, version in load.answers} == {"1"}


def test_what_cannot_be_served_is_refused_before_anything_changes(served: Cluster) -> None:
    before = served.replicas()
    assert "no-such-model" in served.deploy("no-such-model")
    assert "replica" in served.deploy("karyon-lite@1", replica=3)
    assert served.replicas() == before


def test_the_file_for_clusters_deploys_as_it_is_but_for_the_gpu(served: Cluster) -> None:
    wanted = yaml.safe_load((PROJECT / "deploy/ray/serve.yaml").read_text())
    (application,) = wanted["applications"]
    application["args"] |= {"gpus": 0, "cpus": 1, "model": "karyon-lite@2"}
    del wanted["http_options"], wanted["proxy_location"]  # of a cluster that runs they cannot change
    assert served.tell(wanted) == "served"
    answer = httpx.post(served.url + "/v1/segment?mpp=0.5", content=png(tissue()), headers=PNG, timeout=60)
    assert answer.json()["provenance"]["model"]["version"] == "2"
