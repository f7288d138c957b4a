"""Who is calling: a key's owner, or an address that only trusted proxies may name; and what a key may do."""

from __future__ import annotations

from ipaddress import ip_network

import httpx
import pytest
from starlette.requests import HTTPConnection

from app.api.security import identify
from app.settings import ApiKey, Settings

pytestmark = pytest.mark.anyio
SECRET = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
PROXIES = tuple(map(ip_network, ("10.0.0.0/24", "fd00::/8", "192.0.2.7")))


def caller(peer: str | None, *forwarded: str, proxies=PROXIES) -> str:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    client = (peer, 1234) if peer else None
    connection = HTTPConnection({"type": "http", "method": "GET", "headers": headers, "client": client})
    return identify(connection, (), False, proxies).removeprefix("address:")


def test_an_address_is_the_peers_whatever_it_says_of_itself():
    assert caller("198.51.100.9", "1.2.3.4") == "198.51.100.9"
    assert caller("10.0.0.3", "1.2.3.4", proxies=()) == "10.0.0.3"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.3", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.3", ["9.9.9.9, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.3", ["9.9.9.9", "203.0.113.5, 192.0.2.7"], "203.0.113.5"),
        ("10.0.0.3", ["10.0.0.9"], "10.0.0.9"),
        ("10.0.0.3", [], "10.0.0.3"),
        ("10.0.0.3", ["unknown"], "10.0.0.3"),
        ("10.0.0.3", ["203.0.113.5, nonsense, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.3", ["203.0.113.5:4711"], "203.0.113.5"),
        ("fd00::1", ["[2001:db8::5]:443"], "2001:db8::5"),
        ("::ffff:10.0.0.3", ["2001:DB8:0::5"], "2001:db8::5"),
        (None, ["203.0.113.5"], "unknown-address"),
    ],
)
def test_a_trusted_proxy_names_its_caller_and_nobody_further(peer, forwarded, address):
    assert caller(peer, *forwarded) == address


async def test_callers_behind_a_proxy_have_a_quota_each(serving, png):
    async with serving(trusted_proxies=(ip_network("127.0.0.1"),), tenant_cost=6.0, tenant_rate=0.001) as service:
        answers = [await service.segment(png, headers={"X-Forwarded-For": f"203.0.113.{n}"}) for n in (5, 5, 6)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]


async def test_a_key_that_may_only_read_asks_for_no_work(serving, png):
    async with serving(api_keys=(ApiKey("viewer", SECRET, "read"),)) as service:
        answer = await service.segment(png, headers={"X-API-Key": "secret"})
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:karyon:problem:forbidden")
        assert (await service.http.get("/v1/models", headers={"X-API-Key": "secret"})).status_code == 200


def test_rights_are_the_third_part_of_a_key():
    assert Settings(api_keys=f"a:{SECRET}, b:{SECRET}:read").api_keys == (
        ApiKey("a", SECRET, "all"),
        ApiKey("b", SECRET, "read"),
    )
    with pytest.raises(ValueError, match="id:sha256:read"):
        Settings(api_keys=f"a:{SECRET}:write")


def test_proxies_are_addresses_or_networks():
    assert Settings(trusted_proxies="10.0.0.0/24, fd00::/8,192.0.2.7").trusted_proxies == PROXIES
    with pytest.raises(ValueError, match="an address or a network"):
        Settings(trusted_proxies="proxy.example.org")


# Pages of other hosts

VIEWER = "https://viewer.example.org"
PREFLIGHT = {
    "Origin": VIEWER,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type, x-api-key, x-request-timeout-ms, x-request-class",
}


async def ask(service, **headers: str) -> httpx.Response:
    return await service.http.options("/v1/segment", headers=PREFLIGHT | headers)


async def test_by_default_no_page_of_another_host_may_ask(service, png):
    assert (await ask(service)).status_code == 405
    answer = await service.segment(png, headers={"Origin": VIEWER})
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(("origins", "allowed"), [((VIEWER,), VIEWER), (("*",), "*")])
async def test_a_page_that_is_named_may_ask_and_read_answers_and_refusals(serving, png, origins, allowed):
    async with serving(cors_origins=origins, api_keys=(ApiKey("a", SECRET),)) as service:
        preflight = await ask(service)
        told = await service.segment(png, headers={"Origin": VIEWER, "X-API-Key": "secret"})
        refused = await service.segment(png, headers={"Origin": VIEWER})
    assert (preflight.status_code, told.status_code, refused.status_code) == (200, 200, 401)
    assert {answer.headers["access-control-allow-origin"] for answer in (preflight, told, refused)} == {allowed}
    assert {"Model-Version", "Retry-After"} <= set(told.headers["access-control-expose-headers"].split(", "))
    assert "access-control-allow-credentials" not in told.headers


@pytest.mark.parametrize(
    "wrong",
    [
        {"Origin": "https://viewer.example.org.evil.test"},
        {"Access-Control-Request-Method": "PUT"},
        {"Access-Control-Request-Headers": "x-anything"},
    ],
)
async def test_a_preflight_that_is_refused_is_a_problem(serving, wrong):
    async with serving(cors_origins=(VIEWER,)) as service:
        answer = await ask(service, **wrong)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    assert answer.json()["type"] == "urn:karyon:problem:forbidden"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["viewer.example.org", "https://viewer.example.org/page", "https://*.example.org"])
def test_an_origin_is_scheme_and_host(origin):
    with pytest.raises(ValueError, match="scheme and host"):
        Settings(cors_origins=origin)
