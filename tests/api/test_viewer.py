"""How the page's files are served, and what is said where they are not built."""

from __future__ import annotations

import re

import pytest

from app.api import viewer
from app.nuclei.taxonomy import CLASSES

pytestmark = pytest.mark.anyio


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A viewer that is built, of files that say nothing."""
    for name in ("src/index.html", "src/main.js", "dist/openseadragon.min.js", "package.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(viewer, "HOME", tmp_path)
    return tmp_path


async def test_the_page_may_talk_to_this_service_alone(service, home):
    page = await service.http.get("/viewer")
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert page.text == "src/index.html"
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "http" not in page.headers["content-security-policy"]


async def test_the_page_needs_no_key_but_what_it_asks_for_does(serving, home):
    async with serving(api_keys=(("ward3", "0" * 64),)) as service:
        assert (await service.http.get("/viewer")).status_code == 200
        assert (await service.http.get("/viewer/config.json")).json()["key_needed"] is True
        assert (await service.http.get("/v1/models")).status_code == 401


async def test_without_its_library_the_page_says_how_to_build_it(service, home):
    (home / "dist/openseadragon.min.js").unlink()
    answer = await service.http.get("/viewer")
    assert (answer.status_code, answer.headers["content-type"]) == (501, "text/html; charset=utf-8")
    assert "make viewer" in answer.text


async def test_a_browser_that_has_a_file_is_not_sent_it_again(service, home):
    first = await service.http.get("/viewer/main.js")
    again = await service.http.get("/viewer/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, first.text, again.status_code, again.content) == (200, "src/main.js", 304, b"")
    assert first.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "name",
    ["package.json", "../package.json", "..%2fpackage.json", "%2e%2e/package.json", "vendor/../../package.json",
     "vendor/..%2fpackage.json", "..%5cpackage.json", "vendor//etc/passwd", "nothing.js", "index.html"],
)  # fmt: skip
async def test_nothing_else_is_served(service, home, name):
    answer = await service.http.get(f"/viewer/{name}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:karyon:problem:not-found")


async def test_a_slash_at_the_end_leads_to_the_page(service, home):
    answer = await service.http.get("/viewer/")
    assert (answer.status_code, answer.headers["location"]) == (308, "../viewer")


async def test_colours_come_from_the_taxonomy(service):
    classes = (await service.http.get("/viewer/config.json")).json()["classes"]
    assert [(c["name"], tuple(c["colour"])) for c in classes] == [(c.name, c.colour) for c in CLASSES]


async def test_a_probe_may_ask_for_the_head_of_the_page(service, home):
    answer = await service.http.head("/viewer")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_page_asks_for_nothing_elsewhere():
    sources = [path.read_text() for path in (viewer.HOME / "src").iterdir()]
    assert len(sources) > 10
    foreign = [url for text in sources for url in re.findall(r"https?://[\w./-]+", text)]
    assert set(foreign) <= {"http://www.w3.org/2000/svg"}


def test_the_lock_file_names_no_registry():
    lock = (viewer.HOME / "package-lock.json").read_text()
    assert '"integrity": "sha512-' in lock
    assert "resolved" not in lock
