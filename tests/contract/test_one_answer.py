"""Evaluation, command line and service give one and the same answer, to the last nucleus."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from PIL import Image
from skimage.data import immunohistochemistry

from app import cli
from app.main import create_app
from app.nuclei import Segmenter, load_artifact
from app.nuclei.engine import OnnxEngine
from app.settings import Settings
from training.data.sample import Sample
from training.evaluate import evaluate_image
from training.int8 import multiplies_exactly

SIZE = 400  # one patch of 512, mirrored beyond the edge


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    whole: np.ndarray = immunohistochemistry()
    return np.ascontiguousarray(whole[:SIZE, :SIZE])


async def _served(png: bytes, precision: Literal["float32", "int8"] = "float32") -> dict[str, Any]:
    app = create_app(Settings(threads=2, device="cpu", precision=precision))
    async with app.router.lifespan_context(app):
        await asyncio.to_thread(app.state.services.lifecycle.wait_started)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://karyon", timeout=120) as http:
            answer = await http.post("/v1/segment?mpp=0.5", content=png, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _nuclei(collection: dict[str, Any]) -> list[Any]:
    return [(f["geometry"], f["properties"]) for f in collection["features"]]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_evaluation_command_line_and_service_agree(
    image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Literal["float32", "int8"]
) -> None:
    monkeypatch.setenv("KARYON_PRECISION", precision)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    (tmp_path / "tile.png").write_bytes(buffer.getvalue())
    served = asyncio.run(_served(buffer.getvalue(), precision))
    possible = precision if multiplies_exactly() else "float32"
    assert served["provenance"]["runtime"]["precision"] == possible
    command = ["segment", str(tmp_path / "tile.png"), "--mpp", "0.5", "-o", str(tmp_path / "out.geojson")]
    assert cli.main(command) == cli.OK
    written = json.loads((tmp_path / "out.geojson").read_bytes())
    nothing = np.zeros(image.shape[:2], np.int32)
    sample = Sample("tile", "none", "none", image, nothing, np.zeros(1, np.uint8), 0.5)
    artifact = load_artifact("karyon-lite")
    segmenter = Segmenter(artifact, OnnxEngine.open(artifact, precision=possible))
    _, evaluated = evaluate_image(segmenter, sample, "fast")
    assert _nuclei(written) == _nuclei(served)
    assert [f["id"] for f in written["features"]] == [f["id"] for f in served["features"]]
    rings = [np.array(f["geometry"]["coordinates"][0], float) for f in served["features"]]
    assert len(rings) == len(evaluated.nuclei)
    assert all(np.array_equal(a, b) for a, b in zip(rings, evaluated.nuclei.rings, strict=True))
    assert served["summary"]["counts"] == evaluated.counts


def test_the_same_tile_twice_is_the_same_to_the_byte_but_for_request_and_time(image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    first, second = (asyncio.run(_served(buffer.getvalue())) for _ in range(2))
    for answer in (first, second):
        answer["provenance"].pop("request_id")
        answer["provenance"].pop("created")
    assert json.dumps(first) == json.dumps(second)
