"""What does LitServe make of the same model? One worker with as many threads as the service has; no batches, which
bring nothing on a CPU.

    python -m tests.benchmarks.rival_litserve

`POST /v1/segment` takes `{"image": base64 of a JPEG}`, because LitServe passes JSON to its worker. Decoding, graph,
separation and GeoJSON are Karyon's. Announces itself as `karyon serve` does.
"""

from __future__ import annotations

import base64
import socket
import threading
import time

import httpx
import litserve
from starlette.responses import Response

from app.telemetry import log, log_as_json
from tests.benchmarks.whole import Whole

HOST = "127.0.0.1"
LOOK_S = 0.1


class Nuclei(litserve.LitAPI):
    """The whole tile as one prediction."""

    def setup(self, device: str) -> None:
        """Called once in the worker."""
        self.whole = Whole()
        self.whole.warm()

    def decode_request(self, request) -> bytes:  # type: ignore[no-untyped-def]
        """JSON to JPEG. LitServe reads the annotation: without one the body is JSON."""
        return base64.b64decode(request["image"])

    def predict(self, x: bytes) -> bytes:
        """JPEG to GeoJSON."""
        return self.whole(x)

    def encode_response(self, output: bytes) -> Response:
        """GeoJSON as it is."""
        return Response(output, media_type="application/geo+json")


def announce(port: int) -> None:
    """Say where it listens, once it is healthy."""
    while True:
        try:
            if httpx.get(f"http://{HOST}:{port}/health", trust_env=False).status_code == 200:
                break
        except httpx.HTTPError:
            pass
        time.sleep(LOOK_S)
    log("listening", host=HOST, port=port)
    log("ready")


def main() -> None:
    """Serve until a signal."""
    log_as_json("info")
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    threading.Thread(target=announce, args=(port,), daemon=True).start()
    server = litserve.LitServer(Nuclei(api_path="/v1/segment"), accelerator="cpu", workers_per_device=1)
    server.run(host=HOST, port=port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
