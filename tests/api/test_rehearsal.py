"""Before the first caller there were others: ourselves."""

from __future__ import annotations

import gc
import hashlib
import logging

import pytest

from app.api.analysis import WRITERS
from app.api.rehearsal import PLAYS, keep_for_good
from app.main import create_app
from app.serving.lifecycle import State
from app.settings import ApiKey

pytestmark = pytest.mark.anyio
START_S = 60


@pytest.fixture
def unrehearsed():
    """It is not."""


def test_every_format_and_every_answer_is_rehearsed():
    assert {kind for kind, _ in PLAYS} == {"png", "jpeg", "tiff"}
    assert {media_type for _, media_type in PLAYS} == set(WRITERS)


async def test_a_rehearsal_is_no_request(serving, caplog):
    caplog.set_level(logging.INFO, "karyon")
    async with serving() as service:
        told = (await service.http.get("/metrics")).text
    assert not [line for line in told.splitlines() if line.startswith("nuclei_request") and "/v1/segment" in line]
    assert [record.facts["route"] for record in caplog.records if record.message == "request"] == ["/metrics"]


async def test_a_service_that_asks_for_keys_rehearses_without_one(serving, caplog):
    async with serving(api_keys=(ApiKey("ward3", hashlib.sha256(b"key").hexdigest()),)) as service:
        assert (await service.http.get("/healthz/ready")).status_code == 200
        assert (await service.segment(b"")).status_code == 401
    assert "a rehearsal was refused" not in caplog.messages


async def test_a_rehearsal_that_is_refused_keeps_nobody_from_being_ready(serving, caplog):
    async with serving(max_pixels=100) as service:
        assert (await service.http.get("/healthz/ready")).status_code == 200
    assert caplog.messages.count("a rehearsal was refused") == len(PLAYS)


async def test_what_comes_before_readiness_comes_after_the_rehearsal(settings, ink):
    seen = []
    app = create_app(settings, lambda artifact, provider, threads: ink, lambda: seen.append(services.lifecycle.state))
    services = app.state.services
    async with app.router.lifespan_context(app):
        assert services.lifecycle.wait_started(START_S)
        assert services.room.inside == 0
    assert seen == [State.STARTING]


def test_what_is_kept_for_good_is_not_looked_through_again():
    try:
        keep_for_good()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
