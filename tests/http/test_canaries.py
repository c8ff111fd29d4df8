"""Secrets planted in every place that takes one, on a served installation, are found nowhere.

Beside what the whole run is searched for (`tests.canaries`), for what has no form of its own to be
told by: keys of upstreams, passwords, an installation's own secret, codes.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pyotp
import pytest
from sqlalchemy import select

from bursar.store.database import sqlite_url
from bursar.store.tables import metadata
from tests import books, logs
from tests.serving import MODEL, House, serving
from tests.upstream_double import Behaviour

UPSTREAM_KEY = "sk-canary-of-the-upstream-0123456789"
MAIL_PASSWORD = "canary of the mail server"
PASSWORD = "canary of a person, long enough"
NEW_PASSWORD = "canary of a person, another one"
WRONG_PASSWORD = "canary of a person, mistyped"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Watched:
    """A house whose every answer is kept, but for those parts that show a secret to its owner."""

    house: House
    canaries: list[str] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    async def call(
        self, method: str, path: str, secret: str, *shown: str, **options: Any
    ) -> httpx2.Response:
        """One call; the fields `shown` of its answer are canaries from now on."""
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        response = await self.house.http.request(method, path, headers=headers, **options)
        text = response.text
        for name in shown:
            values = response.json()[name]
            for value in values if isinstance(values, list) else [values]:
                self.canaries.append(value)
                text = text.replace(value, "")
        self.answers.append(f"{response.headers.raw!r} {text}".encode())
        return response


@pytest.fixture
async def watched(
    migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Watched]:
    """A server with secrets in all its settings, whose mail server is not there."""
    shutil.copyfile(migrated_sqlite, tmp_path / "bursar.db")
    monkeypatch.setenv("CANARY_KEY", UPSTREAM_KEY)
    settings = {
        "mail_host": "127.0.0.1",
        "mail_port": 1,
        "mail_user": "bursar",
        "mail_password": MAIL_PASSWORD,
        "mail_security": "none",
    }
    upstream = {"api_key_env": "CANARY_KEY"}
    url = sqlite_url(tmp_path / "bursar.db")
    with logs.as_a_server(level="debug"):
        async with serving(url, tmp_path, settings=settings, upstream_settings=upstream) as house:
            made = house.installation
            found = Watched(house, [UPSTREAM_KEY, MAIL_PASSWORD, WRONG_PASSWORD])
            found.canaries += [made.operator_key, made.provisioning_key, made.inference_key]
            yield found


async def live(watched: Watched) -> None:
    """Make, use, change and end a secret of every kind."""
    made = watched.house.installation
    owner = made.provisioning_key
    body = {"name": "Canary", "labels": {"team": "x"}}
    key = (await watched.call("POST", "/v1/account/keys", owner, "key", json=body)).json()
    path = f"/v1/account/keys/{key['id']}"
    turned = await watched.call("POST", f"{path}/rotate", owner, "key", json={"grace_s": 60})
    for secret in (key["key"], turned.json()["key"]):
        await watched.call("GET", "/v1/key", secret)
        await watched.call("POST", "/v1/chat/completions", secret, json=CHAT)
        await watched.call("POST", "/v1/leaks", "", json={"secret": secret, "source": "a test"})
    await watched.call("GET", path, owner)
    await watched.call("DELETE", path, owner)
    given = {"name": "Other", "kind": "provisioning"}
    way = "/v1/operator/accounts/1/keys"
    await watched.call("POST", way, made.operator_key, "key", json=given)


async def sign_in(watched: Watched) -> None:
    """A person with a password, tokens, a second factor, and mistakes."""
    await _set_password(watched.house)
    names = ("access_token", "refresh_token")
    login = {"email": "owner@example.com", "password": PASSWORD}
    watched.canaries.append(PASSWORD)
    await watched.call("POST", "/v1/auth/login", "", json={**login, "password": WRONG_PASSWORD})
    found = (await watched.call("POST", "/v1/auth/login", "", *names, json=login)).json()
    old = {"refresh_token": found["refresh_token"]}
    token = (await watched.call("POST", "/v1/auth/refresh", "", *names, json=old)).json()
    bearer = token["access_token"]
    proof = {"password": PASSWORD}
    way = "/v1/auth/second-factor"
    begun = (await watched.call("POST", way, bearer, "secret", "address", json=proof)).json()
    code = {"code": pyotp.TOTP(begun["secret"]).now()}
    await watched.call("POST", f"{way}/confirm", bearer, "recovery_codes", json=code)
    await watched.call("POST", "/v1/account/users", bearer, json={"email": "new@example.com"})
    await watched.call("POST", "/v1/auth/password-reset", "", json={"email": "owner@example.com"})
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    watched.canaries.append(NEW_PASSWORD)
    await watched.call("POST", "/v1/auth/password", bearer, json=change)
    await watched.call("POST", "/v1/auth/revoke", "", json={"token": token["refresh_token"]})


async def _set_password(house: House) -> None:
    from bursar.adapters import passwords
    from bursar.store.people import members

    async with house.server.database.write() as tx:
        user = await members.find_user(tx, email="owner@example.com")
        assert user is not None
        hashed = passwords.hash_password(PASSWORD)
        await members.update_user(tx, user_id=user.id, password_hash=hashed)


async def provoke(watched: Watched) -> None:
    """Have everything fail that can; an upstream even says its own key."""
    secret = watched.house.installation.inference_key
    told = json.dumps({"error": {"message": f"Incorrect API key provided: {UPSTREAM_KEY}"}})
    for status in (400, 401, 403, 404, 422, 429, 500):
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        raw = f"{head}x-key: {UPSTREAM_KEY}\r\ncontent-length: {len(told)}\r\n\r\n{told}"
        watched.house.upstream.behave(Behaviour(raw=(raw.encode(),)))
        await watched.call("POST", "/v1/chat/completions", secret, json=CHAT)
    for path in ("/v1/account", "/v1/nothing", "/api/v1/api_keys", "/v1/operator/accounts"):
        await watched.call("GET", path, secret)
        await watched.call("GET", f"{path}?api_key={secret}", "")
    for text in ("{", f'{{"password": "{WRONG_PASSWORD}", "email": 5}}'):
        await watched.call("POST", "/v1/auth/login", "", content=text)
        headers = {"content-type": "application/json"}
        await watched.house.http.post("/v1/auth/login", content=text, headers=headers)


def forms(canary: str) -> Iterator[bytes]:
    """How a secret may be written down."""
    raw = canary.encode()
    yield raw
    yield raw.hex().encode()
    yield base64.b64encode(raw).rstrip(b"=")[:-2]
    yield json.dumps(canary)[1:-1].encode()


def files(folder: Path) -> dict[str, bytes]:
    """Every file of an installation but the one that is its secret."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "secret.key")
    return {path.name: path.read_bytes() for path in found}


async def test_no_secret_is_in_a_file_a_log_a_figure_or_an_answer(
    watched: Watched, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await live(watched)
    await sign_in(watched)
    await provoke(watched)
    await books.at_rest(watched.house)
    places = {"answers": b"\n".join(watched.answers)}
    places["metrics"] = (await watched.house.http.get("/metrics")).content
    made = watched.house.installation
    for path in ("/v1/account/audit?limit=200", "/v1/account/keys", "/v1/account/alerts"):
        response = await watched.call("GET", path, made.provisioning_key)
        assert response.status_code == 200
        places[path] = response.content
    places["operator's audit"] = (
        await watched.call("GET", "/v1/operator/audit", made.operator_key)
    ).content
    places["settings"] = repr(watched.house.server.settings).encode()
    rows: list[bytes] = []
    async with watched.house.server.database.read() as tx:
        for table in metadata.sorted_tables:
            for row in await tx.execute(select(table)):
                rows += [each if isinstance(each, bytes) else str(each).encode() for each in row]
    places["rows"] = b"\n".join(rows)
    own = (tmp_path / "secret.key").read_bytes()
    places |= files(tmp_path)
    said = capfd.readouterr()
    places["log"] = (said.out + said.err).encode()
    _require_alive(places)
    hits = [
        (place, canary[:10])
        for place, data in places.items()
        for canary in watched.canaries
        for form in forms(canary)
        if form in data
    ]
    hits += [(place, "the installation's") for place, data in places.items() if own.strip() in data]
    assert hits == []
    assert len(watched.canaries) > 20


def _require_alive(places: dict[str, bytes]) -> None:
    """What is searched is there: the search of nothing finds nothing."""
    assert b"bursar_requests" in places["metrics"]
    assert b"Canary" in places["rows"] + places["bursar.db-wal"]
    assert b"key.create" in places["/v1/account/audit?limit=200"]
    assert b"owner@example.com" in places["rows"]
    assert b"mail" in places["log"], places["log"][-2_000:]
    assert len(places["answers"]) > 10_000
