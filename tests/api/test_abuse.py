"""Thousands of broken images from thousands of callers: only refusals, no trace left. And whatever is asked, an error
is a problem that tells nothing of the inside.
"""

from __future__ import annotations

import gc
import io
import random
import re
from ipaddress import ip_network

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from app.api.observing import resident_bytes
from tests.drawn import draw_tissue

pytestmark = pytest.mark.anyio
MOST_GROWTH = 64 * 2**20
KINDS = ("png", "jpeg", "tiff")


def corrupt(seed: int) -> bytes:
    """A small image in which something is wrong, one way or another."""
    draw = random.Random(seed)
    file = io.BytesIO()
    Image.fromarray(draw_tissue(48, 56, seed % 5)).save(file, KINDS[seed % 3])
    data = bytearray(file.getvalue())
    for _ in range(draw.choice((0, 1, 3, 40))):
        at = draw.randrange(len(data) if draw.random() < 0.5 else 64)
        data[at] = draw.randrange(256)
    cut = draw.randrange(len(data))
    spoilt = draw.choice((bytes(data), bytes(data[:cut]), bytes(data[cut:]), bytes(data[:cut] + data[cut // 2 :])))
    return spoilt if spoilt != file.getvalue() else spoilt[:-9]


async def series(service) -> set[tuple[str, ...]]:
    text = (await service.http.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *map(str, sorted(sample.labels.items()))) for sample in samples}


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_corrupt_images_of_as_many_callers_are_refused_and_leave_nothing(serving, encoded, count):
    limits = {"trusted_proxies": (ip_network("127.0.0.1"),), "tenant_rate": 50.0, "cache_bytes": 2**20}
    async with serving(**limits) as service:
        for side in (100, 300):  # every patch size has been seen
            await service.segment(encoded(draw_tissue(side, side)))
        statuses, before, memory = set(), set(), 0
        for number in range(count):
            caller = {"X-Forwarded-For": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}
            answer = await service.segment(corrupt(number), None, headers=caller)
            statuses.add(answer.status_code)
            assert answer.is_success or answer.headers["content-type"] == "application/problem+json"
            if number == count // 3:
                gc.collect()
                before, memory = await series(service), resident_bytes()
        services = service.app.state.services
        assert statuses <= {200, 413, 415, 422}  # some damage changes a few pixels, and is an image still
        assert {415, 422} <= statuses
        assert len(await series(service) - before) < 40
        assert (services.budget.held, services.budget._tenants, services.room.inside) == (0, {}, 0)
        gc.collect()
        assert resident_bytes() - memory < MOST_GROWTH


LEAKS = re.compile(r"Traceback|site-packages|\.py\b|passwd|/(?:home|tmp|usr|var|etc|opt|root)\b|\w+Error\b|line \d+")
JUNK = ("", "?mpp=0.5&model=../../etc/passwd", "?bbox=%00&limit=-1&after=%2Fetc%2Fpasswd", "?profile=<script>")


async def test_whatever_is_asked_an_error_is_a_problem_that_leaks_nothing(service):
    paths = (await service.http.get("/openapi.json")).json()["paths"]
    asked = [re.sub(r"\{\w+\}", name, path) for path in paths for name in ("nobody", "..%2F..%2Fetc%2Fpasswd", "1")]
    refused = 0
    for path in [*dict.fromkeys(asked), "/", "/v1/../etc/passwd", "/v1/segment/", "/%ff"]:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            for query in JUNK:
                body = b'{"path": "/etc/passwd", "mpp": "x"}' if method in ("POST", "PATCH") else None
                answer = await service.http.request(method, path + query, content=body)
                if answer.status_code >= 400:
                    refused += 1
                    assert answer.headers["content-type"] == "application/problem+json", (method, path, query)
                    assert not LEAKS.search(answer.text), answer.text
                    assert answer.status_code < 500 or answer.status_code in (501, 503), answer.text
    assert refused > 100
