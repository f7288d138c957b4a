"""A service over a small true model: no weights, dark blobs are nuclei."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from app import main
from app.main import create_app
from app.nuclei.types import Engine, UInt8
from app.settings import Settings
from app.slides.running import Run
from tests.built import build_model, manifest_of

pytestmark = pytest.mark.anyio
START_S = 60
SLOPE = 1e-5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path, ink: Engine, tissue: UInt8) -> Path:
    """A store with the model ink@1."""
    build_model(tmp_path / "store" / "ink" / "1", ink, tissue[:256, :256])
    (tmp_path / "store" / "ink" / "ACTIVE").write_text("1\n")
    return tmp_path / "store"


@pytest.fixture(scope="session")
def onnx_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with dark@1, the same idea as a graph that ONNX Runtime really runs."""
    store = tmp_path_factory.mktemp("onnx") / "store"
    folder = store / "dark" / "1"
    folder.mkdir(parents=True)
    write_dark_graph(folder / "ink.onnx")
    patch = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    np_prob = (patch.astype(np.float32).mean(-1) < 128).astype(np.float32)
    type_prob = np.stack([1 - np_prob, np_prob, *[np.zeros_like(np_prob)] * 5], axis=-1)
    hv = np.repeat(patch.astype(np.float32).mean(-1)[..., None] * np.float32(SLOPE), 2, axis=-1)
    np.savez(folder / "golden.npz", patches=patch, np_prob=np_prob, hv=hv, type_prob=type_prob)
    (folder / "manifest.json").write_text(json.dumps(manifest_of(folder) | {"name": "dark"}))
    (store / "dark" / "ACTIVE").write_text("1\n")
    return store


def write_dark_graph(path: Path) -> None:
    """patches -> np_prob = mean < 128, hardly any offsets (none at all is no nucleus), everything a neutrophil."""
    onnx = pytest.importorskip("onnx")
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    one, half, zero = (
        onnx.numpy_helper.from_array(np.float32(v), n) for v, n in ((1, "one"), (128, "half"), (0, "zero"))
    )
    last = onnx.numpy_helper.from_array(np.array([-1]), "last")
    five = onnx.numpy_helper.from_array(np.array([1, 1, 1, 5]), "five")
    slope = onnx.numpy_helper.from_array(np.float32(SLOPE), "slope")
    two = onnx.numpy_helper.from_array(np.array([1, 1, 1, 2]), "two")
    nodes = [
        node("Cast", ["patches"], ["float"], to=onnx.TensorProto.FLOAT),
        node("ReduceMean", ["float", "last"], ["mean"], keepdims=0),
        node("Less", ["mean", "half"], ["dark"]),
        node("Cast", ["dark"], ["np_prob"], to=onnx.TensorProto.FLOAT),
        node("Unsqueeze", ["np_prob", "last"], ["ink"]),
        node("Sub", ["one", "ink"], ["paper"]),
        node("Mul", ["ink", "zero"], ["nothing"]),
        node("Tile", ["nothing", "five"], ["others"]),
        node("Unsqueeze", ["mean", "last"], ["light"]),
        node("Mul", ["light", "slope"], ["offset"]),
        node("Tile", ["offset", "two"], ["hv"]),
        node("Concat", ["paper", "ink", "others"], ["type_prob"], axis=-1),
    ]
    outputs = [value(name, onnx.TensorProto.FLOAT, None) for name in ("np_prob", "hv", "type_prob")]
    inputs = [value("patches", onnx.TensorProto.UINT8, ["n", "p", "p", 3])]
    graph = onnx.helper.make_graph(nodes, "dark", inputs, outputs, [one, half, zero, slope, last, five, two])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))


@pytest.fixture
def settings(store: Path) -> Settings:
    return Settings(
        model_store=store,
        model="ink",
        threads=1,
        device="cpu",
        calibration_s=0.0,
        postprocess_workers=0,
        longest_wait_s=600.0,
        cache=store.parent / "cache",
        slide_folder=store.parent / "slides",
    )


@dataclass(frozen=True)
class Service:
    """A running application and a client that talks to it in memory."""

    app: FastAPI
    http: httpx.AsyncClient

    async def segment(self, content: bytes, kind: str | None = "image/png", **parts: Any) -> httpx.Response:
        headers = ({"Content-Type": kind} if kind else {}) | parts.pop("headers", {})
        return await self.http.post("/v1/segment", content=content, headers=headers, **parts)


Serving = Callable[..., Any]


@pytest.fixture
def unrehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services are ready without the rehearsal, which takes most of a start; tests of it override this."""
    monkeypatch.setattr(main, "practise", lambda services, resident: None)


@pytest.fixture
def serving(settings: Settings, ink: Engine, unrehearsed: None) -> Serving:
    """Start a service, with other settings or another engine if given; `async with serving() as service`."""

    @asynccontextmanager
    async def start(wait: bool = True, engine: Engine = ink, **changes: Any) -> AsyncIterator[Service]:
        app = create_app(settings.model_copy(update=changes), lambda artifact, provider, threads: engine)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://karyon") as http,
        ):
            if wait:
                app.state.services.lifecycle.wait_started(START_S)
            yield Service(app, http)

    return start


@pytest.fixture
async def service(serving: Serving) -> AsyncIterator[Service]:
    async with serving() as running:
        yield running


def as_bytes(image: Image.Image | UInt8, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def png(tissue: UInt8) -> bytes:
    return as_bytes(tissue)


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    return as_bytes


@pytest.fixture
def third_interrupted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Slide commands are interrupted in the third window that they begin; a 1 for each begun."""
    whole, seen = Run._one, []

    def interrupted(self: Run, *arguments: Any) -> None:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        whole(self, *arguments)

    monkeypatch.setattr(Run, "_one", interrupted)
    return seen


@pytest.fixture
def model_builder() -> Callable[..., Path]:
    return build_model
