"""What is left of an image when nobody waits for it any more?"""

from __future__ import annotations

import asyncio
import gc
import platform
import threading
import weakref

import pytest

from app.api import services
from app.api.observing import resident_bytes
from app.serving.memory import give_back

pytestmark = pytest.mark.anyio
PATIENCE_S = 60


class Valve:
    """An engine that stops at a closed valve."""

    def __init__(self, engine):
        self.engine, self.open, self.reached = engine, threading.Event(), threading.Event()
        self.open.set()

    def predict(self, patches):
        self.reached.set()
        assert self.open.wait(PATIENCE_S)
        return self.engine.predict(patches)


@pytest.fixture
def images(monkeypatch):
    """Weak references to the pixels of all images that were decoded."""
    real, seen = services.decode, []

    def decode(data, max_pixels):
        image = real(data, max_pixels)
        seen.append(weakref.ref(image.pixels))
        return image

    monkeypatch.setattr(services, "decode", decode)
    return seen


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def until_gone(images):
    for _ in range(200):
        if images and all(image() is None for image in images):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_an_answered_image_leaves_memory_without_the_collector(serving, images, png):
    async with serving() as service:
        images.clear()
        assert (await service.segment(png)).status_code == 200
        assert await until_gone(images)


async def test_the_image_of_a_caller_who_hung_up_leaves_memory_without_the_collector(serving, ink, images, png):
    valve = Valve(ink)
    async with serving(engine=valve) as service:
        images.clear()
        valve.reached.clear()
        valve.open.clear()
        call = asyncio.ensure_future(service.segment(png))
        await asyncio.to_thread(valve.reached.wait, PATIENCE_S)
        call.cancel()
        await asyncio.wait({call})
        del call
        valve.open.set()
        assert await until_gone(images)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not asked")
def test_free_memory_goes_back_to_the_system():
    pieces = [bytearray(10_000) for _ in range(10_000)]
    last = bytearray(10_000)  # so that the heap does not end with what is freed
    held = resident_bytes()
    del pieces
    give_back()
    assert resident_bytes() < held - 50_000_000
    assert last
