"""Is the first call after readiness as fast as the later ones?

    python -m tests.benchmarks.bench_first_call [--starts 9] [--calls 24]

Starts the real service several times. As soon as it is ready it gets a tile of real tissue, then the same tile again
and again, each over a connection of its own. The figure is the first answer's time by the median of the others, and of
that the median over the starts: a ratio, so that a slow machine disturbs little. Prints every start, and merges the
figure into `out/bench/results.json`.
"""

from __future__ import annotations

import argparse
import http.client
import io
import statistics
import time
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from skimage.data import immunohistochemistry

from app.demo import service
from tests.benchmarks.results import merge

BAR = 1.10
PATCH = 256
TIMEOUT_S = 60


def main() -> None:
    """Measure, print, merge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--calls", type=int, default=24, help="after the first")
    parser.add_argument("--stages", action="store_true", help="print what the service says each stage took, in ms")
    arguments = parser.parse_args()
    body = tile()
    ratios = []
    for number in range(1, arguments.starts + 1):
        with service() as running:
            place = urlsplit(running.address)
            ask_ready(place.netloc)
            calls = [call(place.netloc, body) for _ in range(1 + arguments.calls)]
        first, later = calls[0][0], statistics.median(seconds for seconds, _ in calls[1:])
        ratios.append(first / later)
        print(f"start {number}: first {1000 * first:.1f} ms, later {1000 * later:.1f} ms, ratio {ratios[-1]:.3f}")
        if arguments.stages:
            print_stages([stages for _, stages in calls])
    ratio = statistics.median(ratios)
    print(f"first call by later ones: {ratio:.3f} (bar {BAR}), worst start {max(ratios):.3f}")
    entry = {"name": "first_call_ratio", "value": round(ratio, 3), "unit": "first call by the median of later ones"}
    merge([{**entry, "bar": BAR, "holds": ratio <= BAR}])


def ask_ready(netloc: str) -> None:
    """What a load balancer does before it sends anything."""
    connection = http.client.HTTPConnection(netloc, timeout=TIMEOUT_S)
    connection.request("GET", "/healthz/ready")
    if connection.getresponse().status != http.HTTPStatus.OK:
        raise SystemExit("the service is not ready")
    connection.close()


def tile() -> bytes:
    """A PNG of real tissue, as large as one patch."""
    image: Any = immunohistochemistry()  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    Image.fromarray(image[:PATCH, :PATCH]).save(file, "png")
    return file.getvalue()


def call(netloc: str, body: bytes) -> tuple[float, dict[str, float]]:
    """Seconds of one request over a new connection, and what the service says that its stages took, in ms."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(netloc, timeout=TIMEOUT_S)
    connection.request("POST", "/v1/segment?mpp=0.5", body, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    seconds = time.perf_counter() - began
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(f"the service answered {answer.status}")
    parts = (part.partition(";dur=") for part in answer.headers.get("Server-Timing", "").split(", "))
    return seconds, {name: float(took) for name, _, took in parts} | {"whole": 1000 * seconds}


def print_stages(calls: list[dict[str, float]]) -> None:
    """The first call's stages beside the medians of the later ones."""
    for name in calls[0]:
        later = statistics.median(call[name] for call in calls[1:])
        print(f"  {name:12}{calls[0][name]:8.2f}{later:8.2f}")


if __name__ == "__main__":
    main()
