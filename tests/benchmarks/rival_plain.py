"""What would one write in an afternoon? FastAPI and ONNX Runtime: a route, a thread pool, one session.

    python -m tests.benchmarks.rival_plain

No queue of its own, no batches, no classes, no admission. Decoding, graph, separation and GeoJSON are Karyon's, so
that only serving differs. Announces itself as `karyon serve` does.
"""

from __future__ import annotations

import uvicorn
from fastapi import Body, FastAPI
from starlette.responses import Response

from app.server import Server
from app.serving.lifecycle import Lifecycle
from app.telemetry import log, log_as_json
from tests.benchmarks.whole import Whole

app = FastAPI()
whole = Whole()


@app.post("/v1/segment")
def segment(body: bytes = Body(media_type="image/jpeg")) -> Response:
    """One tile; runs in the framework's pool of 40 threads."""
    return Response(whole(body), media_type="application/geo+json")


def main() -> None:
    """Serve until a signal."""
    log_as_json("info")
    whole.warm()
    log("ready")
    Server(uvicorn.Config(app, port=0, log_config=None, access_log=False), Lifecycle()).run()


if __name__ == "__main__":
    main()
