"""A service that asks for keys: the page asks for one, sends it with everything, and forgets it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import Karyon, free_port

SECRET = "a key that nobody guesses"


@pytest.fixture(scope="module")
def locked(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Karyon]:
    keys = f"ward3:{hashlib.sha256(SECRET.encode()).hexdigest()}"
    with Karyon(tmp_path_factory.mktemp("locked"), free_port(), {"KARYON_API_KEYS": keys}) as service:
        yield service


def test_the_key_is_asked_for_and_kept_in_the_tab_alone(open_page, locked, drop, tile, seen):
    page = open_page(service=locked)
    page.locator("#key-field").fill(SECRET)
    page.get_by_role("button", name="Use key").click()
    page.wait_for_selector("#slides")
    drop(page, tile)
    page.wait_for_selector("#total")
    assert page.evaluate("() => [sessionStorage.length > 0, localStorage.length, document.cookie]") == [True, 0, ""]
    assert SECRET not in page.url
    assert [error for error in seen.errors if "401" not in error] == []
    seen.errors.clear()  # the refusal that made the page ask
