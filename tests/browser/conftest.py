"""The real page in a real browser, against the real service with the shipped model, on a free loopback port."""

from __future__ import annotations

import base64
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from PIL import Image
from skimage.data import immunohistochemistry

from app.api.viewer import built

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
OFFLINE = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--disable-default-apps", "--metrics-recording-only"),
]
PATIENCE_S = 400  # a first start compiles the kernels
OURS = ("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")
DROP = """([name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("#stage").dispatchEvent(event);
  }
}"""


@dataclass
class Karyon:
    """`karyon serve` as a process that can be stopped and started again at the same address."""

    folder: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("KARYON_")}
        env |= {"KARYON_CACHE": str(self.folder / "cache"), "KARYON_CALIBRATION_S": "0", "KARYON_DRAIN_DELAY_S": "0"}
        env |= {"KARYON_THREADS": "2", "KARYON_SLIDE_FOLDER": str(self.folder / "slides")} | self.environment
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stderr=log)
        self._await_ready()

    def _await_ready(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self.process
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                if httpx.get(f"{self.address}/healthz/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError("the service did not become ready")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process
        self.process.send_signal(how)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


# A module each: while Playwright runs, its event loop is the main thread's, and other tests have loops of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium here: apt-get install chromium")
    if not built():
        pytest.skip("the viewer is not built here: make viewer (needs npm)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def karyon(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Karyon]:
    with Karyon(tmp_path_factory.mktemp("karyon"), free_port()) as service:
        yield service


@dataclass
class Seen:
    """What a page said and asked for."""

    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def open_page(browser: Any, karyon: Karyon, seen: Seen) -> Iterator[Callable[..., Any]]:
    """Open the page, of a width, a colour scheme; at the end nothing has left the origin or been complained of."""
    contexts = []

    def start(query: str = "", width: int = 1280, service: Karyon = karyon, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        seen.watch(page)
        page.goto(f"{service.address}/viewer{query}")
        page.wait_for_selector("#status[data-state=ready]")
        return page

    yield start
    for context in contexts:
        context.close()
    strangers = [
        url for url in seen.asked if not url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:"))
    ]
    assert (seen.errors, strangers) == ([], [])


@pytest.fixture(scope="session")
def tile() -> bytes:
    """A small PNG of real tissue."""
    return as_png(immunohistochemistry()[256:512, 128:384])


def as_png(image: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def drop() -> Callable[..., None]:
    """Drop a file on a page."""

    def onto(page: Any, content: bytes, name: str = "tile.png", kind: str = "image/png") -> None:
        page.evaluate(DROP, [name, kind, base64.b64encode(content).decode()])

    return onto


@pytest.fixture
def analysed(open_page: Callable[..., Any], drop: Callable[..., None], tile: bytes) -> Any:
    """A page on which a tile was dropped and answered."""
    page = open_page()
    drop(page, tile)
    page.wait_for_selector("#total")
    return page
