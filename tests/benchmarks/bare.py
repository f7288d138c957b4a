"""What can the network do with nothing around it? ONNX Runtime in a loop, and a place to which load can be sent.

    python -m tests.benchmarks.bare

Announces itself as `karyon serve` does. `POST /v1/segment` takes a tile and answers at once: so the load generator
runs while the network is measured, as it does while the service is. `GET /measure?seconds=8` runs the network for so
long, in turn as ONNX Runtime has it (`plain`: a session with all cores, whole batches) and as the service drives it
(`lanes`: patches of a batch side by side, `app.nuclei.lanes`), each at the batch size that the service's calibration
finds for it, and answers with patches per second of both.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qs

import numpy as np
import orjson
import uvicorn
from anyio import to_thread
from starlette.types import Receive, Scope, Send

from app.nuclei import load_artifact
from app.nuclei.engine import OnnxEngine
from app.server import Server
from app.serving.calibration import measure
from app.serving.lifecycle import Lifecycle
from app.telemetry import log, log_as_json

ANSWER = b" " * 60_000  # about what the GeoJSON of a tile has
PATCH = 256
CALIBRATION_S = 3.0


class Bare:
    """An ASGI application around one engine."""

    def __init__(self, engine: OnnxEngine) -> None:
        """Calibrated like the service."""
        ways = {"plain": replace(engine, lanes=None), "lanes": engine}
        self._ways = {
            name: (way, measure(partial(_seconds, way), CALIBRATION_S, way.abreast).most) for name, way in ways.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        body = ANSWER
        if scope["path"] == "/measure":
            seconds = float(parse_qs(scope["query_string"])[b"seconds"][0])
            body = orjson.dumps(await to_thread.run_sync(partial(self._run, seconds)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def _run(self, seconds: float) -> dict[str, float]:
        began, spent, patches = time.perf_counter(), dict.fromkeys(self._ways, 0.0), dict.fromkeys(self._ways, 0)
        while time.perf_counter() - began < seconds:
            for name, (way, batch) in self._ways.items():
                spent[name] += _seconds(way, batch)
                patches[name] += batch
        return {name: patches[name] / spent[name] for name in self._ways}


def _seconds(engine: OnnxEngine, count: int) -> float:
    began = time.perf_counter()
    engine.predict(np.full((count, PATCH, PATCH, 3), 200, np.uint8))
    return time.perf_counter() - began


def main() -> None:
    """Serve until a signal."""
    log_as_json("info")
    bare = Bare(OnnxEngine.open(load_artifact("karyon-lite")))
    config = uvicorn.Config(bare, port=0, log_config=None, access_log=False, lifespan="off")
    log("ready")
    Server(config, Lifecycle()).run()


if __name__ == "__main__":
    main()
