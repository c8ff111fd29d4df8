"""Requests with two meanings at every face of a served installation: D-76 to D-82, D-86, D-89."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bursar.core import secrets
from bursar.core.secrets import KeyKind
from bursar.store.database import sqlite_url
from tests import wire
from tests.serving import MODEL, House, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
# A route of each face that a provisioning key may call.
FACES = ["/v1/account", "/api/v1/billing/balance", "/v1/accounts/my"]
METHODS: list[tuple[str, str]] = [
    ("/healthz", "GET"),
    ("/v1/account", "GET"),
    ("/v1/account/keys", "GET, POST"),
    ("/v1/auth/login", "POST"),
    ("/v1/models", "GET, HEAD"),
    ("/v1/chat/completions", "POST"),
    ("/v1/embeddings", "POST"),
    ("/api/v1/api_keys", "DELETE, GET, HEAD, PATCH, POST"),
    ("/api/v1/chat/completions", "POST"),
    ("/v1/accounts/my", "GET, HEAD"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("requests")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), directory) as served:
        yield served


def bare(text: str) -> str:
    """A body without the id of its request."""
    return re.sub(r"req_[0-9a-f]{24,}", "", text)


# Who is calling


@pytest.mark.parametrize("path", FACES)
async def test_d_76_only_one_good_credential_to_the_letter_lets_in(house: House, path: str) -> None:
    key = house.installation.provisioning_key
    refused: list[list[tuple[str, str]]] = [
        [],
        [("authorization", f"bearer {key}")],
        [("authorization", f"Bearer  {key}")],
        [("authorization", f"Bearer {key} x")],
        [("authorization", f"Basic {key}")],
        [("authorization", key)],
        [("authorization", "Bearer " + "a" * 50_000)],
        [("x-api-key", f"Bearer {key}")],
    ]
    for headers in refused:
        assert (await house.http.get(path, headers=headers)).status_code == 401, headers
    ambiguous = [
        [("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")],
        [("authorization", f"Bearer {key}"), ("x-api-key", key + "x")],
        [("x-api-key", key), ("x-api-key", key)],
    ]
    for headers in ambiguous:
        assert (await house.http.get(path, headers=headers)).status_code == 400, headers
    for headers in ([("authorization", f"Bearer {key}")], [("x-api-key", key)]):
        assert (await house.http.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "Authorization", "X-API-Key"])
async def test_d_77_a_key_in_an_address_is_refused_and_written_nowhere(
    house: House, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    key = house.installation.provisioning_key
    for path in FACES:
        for headers in ({}, {"authorization": f"Bearer {key}"}):
            response = await house.http.get(f"{path}?{name}={key}", headers=headers)
            assert response.status_code == 401
            assert key not in response.text + str(response.headers)
    key = house.installation.inference_key
    response = await house.http.post(f"/v1/chat/completions?{name}={key}", json=CHAT)
    assert response.status_code == 401
    said = capfd.readouterr()
    for secret in (house.installation.provisioning_key, key):
        assert secret not in said.out + said.err


async def test_d_78_every_key_that_is_no_good_is_refused_in_the_same_words(house: House) -> None:
    good = house.installation.provisioning_key
    made = []
    for _ in range(2):
        key_id, secret = await house.make_key()
        made.append((key_id, secret))
    await house.control("DELETE", f"/v1/account/keys/{made[0][0]}")
    await house.control("PATCH", f"/v1/account/keys/{made[1][0]}", json={"is_enabled": False})
    wrong_sum = good[:-1] + ("a" if good[-1] != "a" else "b")
    unknown = secrets.mint(KeyKind.PROVISIONING, random_bytes=os.urandom(32))
    bad = [wrong_sum, unknown, good[:-1], good + "a", "sk-" + good[4:], made[0][1], made[1][1]]
    for path in FACES:
        said = set()
        for secret in bad:
            response = await house.http.get(path, headers={"authorization": f"Bearer {secret}"})
            assert response.status_code == 401, (path, secret[:4])
            said.add(bare(response.text))
            assert secret not in response.text
        assert len(said) == 1, (path, said)


async def test_d_79_a_method_is_what_the_request_line_says(house: House) -> None:
    key_id, _ = await house.make_key()
    path = f"/v1/account/keys/{key_id}"
    for name in ("x-http-method-override", "x-http-method", "x-method-override", "_method"):
        key = {"authorization": f"Bearer {house.installation.provisioning_key}", name: "DELETE"}
        assert (await house.http.get(path, headers=key)).status_code == 200
        assert (await house.http.post(path, headers=key)).status_code == 405
    asked = await house.control("GET", f"{path}?_method=DELETE")
    assert asked.status_code == 422
    assert (await house.control("GET", path)).status_code == 200


@pytest.mark.parametrize(("path", "allowed"), METHODS)
async def test_d_80_a_method_that_a_path_has_not_is_refused_and_the_others_named(
    house: House, path: str, allowed: str
) -> None:
    key = {"authorization": f"Bearer {house.installation.provisioning_key}"}
    for method in {"TRACE", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"} - {*allowed.split(", ")}:
        for headers in ({}, key):
            response = await house.http.request(method, path, headers=headers)
            assert (response.status_code, response.headers["allow"]) == (405, allowed), method


async def test_d_81_what_a_stranger_says_of_itself_is_not_heard(house: House) -> None:
    said = {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "admin.example.com",
        "x-forwarded-proto": "https",
        "x-real-ip": "127.0.0.1",
        "x-user-id": "1",
        "x-account-id": "1",
        "x-original-url": "/healthz",
        "x-rewrite-url": "/healthz",
        "forwarded": "for=127.0.0.1;host=localhost;proto=https",
    }
    for path in FACES:
        assert (await house.http.get(path, headers=said)).status_code == 401
    # The throttle counts the socket's address, whatever else is said.
    statuses = []
    for number in range(12):
        response = await house.http.post(
            "/v1/auth/login",
            json={"email": "owner@example.com", "password": "not the password"},
            headers={"x-forwarded-for": f"198.51.100.{number}", "x-real-ip": f"10.0.0.{number}"},
        )
        statuses.append(response.status_code)
    assert statuses[-1] == 429, statuses


# What is asked for

VARIANTS = [
    *(
        "/V1/account",
        "/v1/Account",
        "/v1//account",
        "//v1/account",
        "/v1/account/",
        "/v1/account//",
    ),
    *("/v1/account;x=1", "/v1/account%2f", "/v1%2faccount", "/v1/account%00", "/v1/account%20"),
    *("/v1/./account", "/v1/x/../account", "/v1/models/../account", "/v1/account/..%2faccount"),
    *("/healthz/../v1/account", "/v1/operator/../account", "/v1/account\\keys", "/v1/account."),
    *("/api/v1/../../v1/account", "/api//v1/billing/balance", "/API/v1/billing/balance"),
    *("/v1/%2e%2e/v1/account", "/v1/accountx", "/v1/account%3fx", "/v1/account%23"),
    *("/v1/accounts//my", "/v1/accounts/my/", "/v1/Accounts/my", "/v1/accounts%2fmy"),
    *("/v1/operator/accounts/", "/v1/operator//accounts", "/v1/account/../operator/accounts"),
]


async def test_d_82_no_spelling_of_a_path_leads_where_another_one_does(house: House) -> None:
    for secret in (house.installation.provisioning_key, house.installation.operator_key):
        for path in VARIANTS:
            request = (
                f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n\r\n".encode()
            )
            talk = await wire.talk(house.url, request)
            assert talk.statuses in ([404], [400]), path


async def test_d_82_an_encoded_letter_is_not_the_letter(house: House) -> None:
    paths = ("/v1/%61ccount", "/%761/account", "/v1/%6Fperator/accounts", "/api/v1/api%5fkeys")
    for secret in (house.installation.provisioning_key, house.installation.operator_key):
        for path in paths:
            headers = {"authorization": f"Bearer {secret}"}
            assert (await house.http.get(path, headers=headers)).status_code == 404, path
    response = await house.http.post("/v1/chat/%63ompletions", json=CHAT)
    assert response.status_code == 404


@pytest.mark.parametrize("ranges", ["0-0", "0-0," * 1_000 + "1-1", "-1", "abc"])
async def test_d_86_nothing_is_given_in_pieces(house: House, ranges: str) -> None:
    for path in ("/v1/account", "/v1/account/usage/events", "/v1/models", "/openapi.json"):
        whole = await house.control("GET", path)
        headers = {
            "range": f"bytes={ranges}",
            "authorization": f"Bearer {house.installation.provisioning_key}",
        }
        response = await house.http.get(path, headers=headers)
        assert (response.status_code, response.content) == (200, whole.content)
        assert "content-range" not in response.headers


@pytest.mark.parametrize("accept", ["application/xml", "text/html", "*/*;q=0", "x" * 5_000, ","])
async def test_d_89_whatever_is_accepted_json_is_given(house: House, accept: str) -> None:
    key: dict[str, Any] = {"authorization": f"Bearer {house.installation.provisioning_key}"}
    for path in ("/v1/account", "/v1/nothing", "/v1/models", "/v1/accounts/my", "/healthz"):
        response = await house.http.get(path, headers={**key, "accept": accept})
        assert response.headers["content-type"].startswith("application/json")
        response.json()
