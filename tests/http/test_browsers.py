"""What a browser is told, and by which names the server may be called: D-75, D-88, D-134."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bursar.config import ConfigError, Settings
from bursar.gateway.http.names import Names
from bursar.store.database import sqlite_url
from tests import wire
from tests.serving import MODEL, House, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = "https://app.example.com"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
# A path of each part of the server, for each of its ways to answer.
PATHS: list[tuple[str, str, int]] = [
    ("GET", "/healthz", 200),
    ("GET", "/v1/models", 200),
    ("GET", "/v1/models/unknown", 404),
    ("GET", "/v1/account", 401),
    ("GET", "/v1/nothing", 404),
    ("PUT", "/v1/account/keys", 405),
    ("POST", "/v1/auth/login", 415),
    ("POST", "/v1/chat/completions", 415),
    ("PUT", "/v1/chat/completions", 405),
    ("GET", "/api/v1/models", 200),
    ("GET", "/api/v1/api_keys", 401),
    ("GET", "/api/v1/nothing", 404),
]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A server that goes by two names and lets one page read."""
    directory = tmp_path_factory.mktemp("browsers")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    settings = {
        "allowed_hosts": "bursar.example.com, 192.0.2.7",
        "cors_origins": [PAGE, "http://localhost:3000"],
        "public_url": "https://api.example.com/bursar",
    }
    async with serving(sqlite_url(path), directory, settings=settings) as served:
        yield served


# Headers


async def test_every_answer_says_what_it_is_and_that_it_came_by_tls(house: House) -> None:
    for method, path, status in PATHS:
        response = await house.http.request(method, path)
        assert response.status_code == status, (path, response.text)
        assert response.headers.get_list("x-content-type-options") == ["nosniff"], path
        assert response.headers["strict-transport-security"] == "max-age=31536000", path
        assert response.headers["content-type"].startswith("application/json"), path
        assert "server" not in response.headers
        assert "x-powered-by" not in response.headers


async def test_no_answer_of_the_control_plane_is_a_page(house: House) -> None:
    for method, path, _ in PATHS:
        if "models" in path or "chat" in path:
            continue
        headers = (await house.http.request(method, path)).headers
        policy = headers.get_list("content-security-policy")
        assert policy == ["default-src 'none'; frame-ancestors 'none'; base-uri 'none'"]
        assert headers.get_list("cache-control") == ["no-store"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_good_answers_of_models_are_not_sniffed_either(house: House) -> None:
    for body in (CHAT, {**CHAT, "stream": True}):
        response = await house.http.post(
            "/v1/chat/completions", json=body, headers=bearer(house.installation.inference_key)
        )
        assert response.status_code == 200
        assert response.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_tls_is_promised_where_callers_come_by_it_alone(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), tmp_path) as plain:
        for address in ("/healthz", "/v1/models"):
            headers = (await plain.http.get(address)).headers
            assert "strict-transport-security" not in headers
            assert "vary" not in headers


# Which names are the server's

KNOWN = [
    *("bursar.example.com", "BURSAR.example.com", "bursar.example.com:8443", "192.0.2.7:80"),
    *("bursar.example.com.", "api.example.com", "localhost:8080", "127.0.0.1", "[::1]:8080"),
]
UNKNOWN = [
    *("evil.example", "bursar.example.com.evil.example", "xbursar.example.com", "example.com"),
    *("192.0.2.8", "127.0.0.2", "[::2]", "localhost.evil.example", "bursar.example.com:x"),
    *("10.0.0.1", "0.0.0.0", "api.example.com.."),
]


def get(path: str, host: str, *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"host: {host}", *more, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("host", KNOWN)
async def test_d_75_a_request_by_one_of_the_servers_names_is_served(
    house: House, host: str
) -> None:
    for path, status in (("/healthz", 200), ("/v1/models", 200), ("/v1/account", 401)):
        talk = await wire.talk(house.url, get(path, host))
        assert talk.statuses == [status]


@pytest.mark.parametrize("host", UNKNOWN)
async def test_d_75_a_request_by_another_name_is_refused_whatever_it_asks_for(
    house: House, host: str
) -> None:
    key = f"authorization: Bearer {house.installation.provisioning_key}"
    for path in ("/healthz", "/v1/models", "/v1/account", "/api/v1/models", "/v1/nothing"):
        talk = await wire.talk(house.url, get(path, host, key))
        assert (talk.statuses, talk.is_closed) == ([421], True), path
        assert talk.answers[0].code == "unknown_host"
        assert talk.answers[0].headers["x-content-type-options"] == "nosniff"


async def test_d_75_a_call_of_a_model_by_another_name_is_refused(house: House) -> None:
    response = await house.http.post(
        "/v1/chat/completions",
        json=CHAT,
        headers={**bearer(house.installation.inference_key), "host": "evil.example"},
    )
    assert response.status_code == 421


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://bursar.example.com/v1/models", 200),
        ("http://BURSAR.example.com:80/v1/models", 200),
        ("http://evil.example/v1/models", 421),
        ("http://bursar.example.com@evil.example/v1/models", 421),
        ("http://evil.example/bursar.example.com", 421),
    ],
)
async def test_d_75_a_target_that_names_a_host_must_name_ours(
    house: House, target: str, status: int
) -> None:
    talk = await wire.talk(house.url, get(target, "bursar.example.com"))
    assert talk.statuses[0] in {status, 400 if "@" in target else status}


async def test_d_75_a_request_without_a_name_is_refused_where_names_matter(house: House) -> None:
    talk = await wire.talk(house.url, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert talk.statuses == [421]


async def test_by_default_every_name_is_the_servers() -> None:
    assert Names().is_ours(b"evil.example", b"http://other.example/")
    assert Names(origins=[PAGE]).is_ours(b"evil.example", b"/")


# Which pages may read


async def test_d_88_a_page_of_a_known_origin_reads_answers_good_and_bad(house: House) -> None:
    for method, path, status in PATHS:
        response = await house.http.request(method, path, headers={"origin": PAGE})
        assert response.status_code == status
        assert response.headers.get_list("access-control-allow-origin") == [PAGE], path
        assert "x-request-id" in response.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["vary"] == "origin"


async def test_d_88_so_it_does_those_of_models_quick_and_streamed(house: House) -> None:
    headers = {**bearer(house.installation.inference_key), "origin": "http://localhost:3000"}
    for body in (CHAT, {**CHAT, "stream": True}):
        response = await house.http.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert (await house.http.get("/v1/models")).headers.get("access-control-allow-origin") is None


FOREIGN = [
    *("https://evil.example", "null", "*", "https://app.example.com.evil.example", "", "file://"),
    *(
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com/",
        PAGE * 2,
    ),
    *(PAGE * 2, "https://APP.example.com", "https://evil.example, https://app.example.com"),
]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_d_88_no_other_page_reads_anything(house: House, origin: str) -> None:
    asking = {"origin": origin, "access-control-request-method": "GET"}
    for path in ("/v1/account", "/v1/models", "/v1/chat/completions", "/healthz", "/api/v1/models"):
        for method in ("GET", "OPTIONS"):
            response = await house.http.request(method, path, headers=asking)
            given = [name for name in response.headers if name.startswith("access-control")]
            assert given == [], (method, path)
            assert response.headers["vary"] == "origin"
            assert response.status_code == 405 or method == "GET"


async def test_d_88_two_origins_are_none(house: House) -> None:
    origins = (f"origin: {PAGE}", f"origin: {PAGE}")
    (answer,) = (await wire.talk(house.url, get("/healthz", "localhost", *origins))).answers
    assert "access-control-allow-origin" not in answer.headers


async def test_d_88_a_known_page_is_told_what_it_may_send(house: House) -> None:
    asking = {
        "origin": PAGE,
        "access-control-request-method": "DELETE",
        "access-control-request-headers": "authorization",
    }
    for path in ("/v1/account/keys/3", "/v1/chat/completions", "/v1/nothing", "/api/v1/api_keys"):
        response = await house.http.options(path, headers=asking)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["access-control-allow-origin"] == PAGE
        assert "DELETE" in response.headers["access-control-allow-methods"]
        assert "authorization" in response.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in response.headers
    assert (await house.http.options("/healthz", headers={"origin": PAGE})).status_code == 405


async def test_d_88_the_next_request_on_a_connection_is_nobodys_page(house: House) -> None:
    first = get("/healthz", "localhost", f"origin: {PAGE}")
    talk = await wire.talk(house.url, first + get("/healthz", "localhost") + first, expect=3)
    found = [answer.headers.get("access-control-allow-origin") for answer in talk.answers]
    assert found == [PAGE, None, PAGE]


# The settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_hosts", "bursar.example.com:8080"),
        ("allowed_hosts", "https://bursar.example.com"),
        ("allowed_hosts", "*"),
        ("cors_origins", "*"),
        ("cors_origins", "null"),
        ("cors_origins", "https://app.example.com/path"),
        ("cors_origins", "app.example.com"),
        ("cors_origins", "https://user@app.example.com"),
    ],
)
async def test_a_name_that_is_none_stops_the_start(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        Settings.load(None, {"data_dir": tmp_path, name: value})
