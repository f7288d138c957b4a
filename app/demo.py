"""Does it all work on this machine? Starts the real service, sends it tissue, and writes what came back to out/.

The tile is scikit-image's immunohistochemistry example: real colon tissue with haematoxylin, but stained with DAB, not
eosin. The technical check should say so.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from skimage.data import immunohistochemistry

from app.bench.processes import pss_bytes
from app.client import Client
from app.nuclei.taxonomy import CLASSES
from app.nuclei.types import UInt8

OUT = Path("out")
MPP = 0.5  # about; the example's publisher states none
TO_STOP_S = 60
LEGEND_HEIGHT = 48


@dataclass(frozen=True)
class Service:
    """The service as a process of its own: its address, and how long it took to be ready."""

    process: subprocess.Popen[str]
    address: str
    seconds_to_ready: float


def main() -> int:
    """Run the demonstration; 0 if everything held."""
    image: UInt8 = immunohistochemistry()  # type: ignore[no-untyped-call]
    OUT.mkdir(exist_ok=True)
    with service() as running:
        print(f"ready on {running.address} after {running.seconds_to_ready:.1f} s")
        print(f"memory of the idle service (PSS): {pss_bytes(running.process.pid) / 2**20:.0f} MiB")
        began = time.perf_counter()
        with Client(running.address) as client:
            nuclei = client.segment(as_png(image), mpp=MPP)
            print(f"answered in {time.perf_counter() - began:.2f} s")
            outlines = client.fetch(as_png(image), "image/png", mpp=MPP).content
        report(nuclei)
        (OUT / "demo.geojson").write_text(json.dumps(nuclei))
        picture(image, outlines, nuclei["summary"]["counts"]).save(OUT / "demo.png")
    status = running.process.returncode
    print(f"wrote {OUT / 'demo.geojson'} and {OUT / 'demo.png'}; the service ended with status {status}")
    return status


@contextmanager
def service() -> Iterator[Service]:
    """The service on a free loopback port, ready; stopped at the end as a supervisor would stop it."""
    command = [sys.executable, "-m", "app.cli", "serve", "--host", "127.0.0.1", "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = wait_until_ready(process)
            yield Service(process, address, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=TO_STOP_S)


def wait_until_ready(process: subprocess.Popen[str]) -> str:
    """The service's address, from its own log.

    Raises:
        SystemExit: if it ends or fails instead, with its last words.
    """
    address = ""
    for text in process.stderr or ():
        line = facts(text)
        if line["event"] == "listening":
            address = f"http://{line['host']}:{line['port']}"
        if line["event"] == "ready":
            print(f"model {line['model']}@{line['version']}, licence {line['licence']}")
            return address
        if line.get("level") == "error":
            raise SystemExit(f"the service did not start: {text.strip()}")
    raise SystemExit("the service ended before it was ready")


def facts(text: str) -> dict[str, Any]:
    """One line of the service's log."""
    try:
        line: dict[str, Any] = json.loads(text)
    except ValueError:  # said before logging was set up, such as a setting that does not exist
        return {"event": text, "level": "error"}
    return line


def report(nuclei: dict[str, Any]) -> None:
    """Print counts and technical check."""
    summary, qc = nuclei["summary"], nuclei["qc"]
    print(f"{summary['total']} nuclei")
    for name, count in summary["counts"].items():
        print(f"  {name:<12}{count:>5}")
    print(f"technical check: {qc['verdict']} {', '.join(qc['codes'])}")
    print(nuclei["notice"])


def picture(image: UInt8, outlines: bytes, counts: dict[str, int]) -> Image.Image:
    """The tile under the service's outlines, and below it what the colours mean.

    Args:
        image: (H, W, 3) uint8 RGB.
        outlines: PNG of the same size on transparent ground.
        counts: nuclei per class.
    """
    height, width = image.shape[:2]
    page = Image.new("RGBA", (width, height + LEGEND_HEIGHT), "white")
    page.paste(Image.fromarray(image))
    page.alpha_composite(Image.open(io.BytesIO(outlines)).convert("RGBA"))
    draw = ImageDraw.Draw(page)
    for i, kind in enumerate(CLASSES):
        x, y = 8 + i % 3 * (width // 3), height + 8 + i // 3 * 20
        draw.rectangle((x, y, x + 10, y + 10), fill=kind.colour)
        draw.text((x + 16, y), f"{kind.name} {counts[kind.name]}", fill="black")
    return page.convert("RGB")


def as_png(image: UInt8) -> bytes:
    """An RGB image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
