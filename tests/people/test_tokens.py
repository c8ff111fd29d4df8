"""Access tokens: only what we signed, for us, of this moment and in its one spelling, counts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from bursar.adapters import tokens
from bursar.adapters.tokens import KeyPair
from bursar.adapters.vault import Vault
from bursar.jobs import retention
from bursar.service.people import tokens as service
from bursar.service.people.tokens import Bearer
from bursar.store.database import Database
from bursar.store.people import signing_keys
from bursar.store.people.signing_keys import SigningKeyRow
from tests.databases import START_MS, Clock
from tests.installations import OPERATOR, Randomness
from tests.people.house import House, code_of

BEARER = Bearer(user_id=5, account_id=1, session_id=9, seal=b"s" * 16)
VAULT = Vault(b"v" * 32)


def b64(value: bytes | str | dict[str, Any]) -> str:
    """A part of a token."""
    if isinstance(value, dict):
        value = json.dumps(value)
    if isinstance(value, str):
        value = value.encode()
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unb64(part: str) -> Any:
    """What a part of a token says."""
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.fixture
async def token(database: Database) -> str:
    """A good token."""
    async with database.write() as tx:
        made = await service.issue(tx, bearer=BEARER, vault=VAULT, random_bytes=Randomness())
    return made.text


@pytest.fixture
async def pair(database: Database, token: str) -> KeyPair:
    """The keys that it was signed with."""
    async with database.read() as tx:
        (row,) = await signing_keys.list_since(tx, since_ms=0)
    private = VAULT.open(row.sealed_private_key, purpose="signing key", about=row.id)
    assert private is not None
    return KeyPair(row.public_key, private)


@pytest.fixture
async def other_pair(database: Database) -> tuple[str, KeyPair]:
    """Another pair of ours, whose row says another algorithm."""
    made = tokens.make_pair()
    row = SigningKeyRow("ab" * 16, "HS256", made.public, b"", START_MS)
    async with database.write() as tx:
        await signing_keys.insert_signing_key(tx, row=row)
    return row.id, made


async def bearer_of(database: Database, token: str | bytes) -> Bearer | None:
    """Whom a token is about."""
    raw = token.encode("latin-1") if isinstance(token, str) else token
    async with database.read() as tx:
        return await service.find_bearer(tx, token=raw, now_ms=database.clock_ms())


async def test_a_good_token_says_whom_it_is_about(database: Database, token: str) -> None:
    assert await bearer_of(database, token) == BEARER
    claims = unb64(token.split(".")[1])
    assert claims["exp"] - claims["iat"] in {900, 901}
    assert "role" not in claims


HEADERS: dict[str, dict[str, Any]] = {
    "D-111 none": {"alg": "none"},
    "D-111 nOnE": {"alg": "nOnE"},
    "D-111 empty": {"alg": ""},
    "D-112 HS256": {"alg": "HS256"},
    "D-112 RS256": {"alg": "RS256"},
    "D-112 EdDSA": {"alg": "EdDSA"},
    "D-114 path": {"kid": "../../../../dev/null"},
    "D-114 SQL": {"kid": "' OR 1=1 --"},
    "D-114 unknown": {"kid": "0" * 32},
    "D-114 huge": {"kid": "a" * 1_000},
    "D-114 number": {"kid": 7},
    "D-114 list": {"kid": ["a"]},
    "D-115 jku": {"jku": "https://evil.example/keys"},
    "D-115 x5u": {"x5u": "https://evil.example/cert"},
    "D-115 jwk": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}},
    "D-115 x5c": {"x5c": ["MIIB"]},
    "D-116 crit": {"crit": ["exp"]},
    "D-116 b64": {"b64": False, "crit": ["b64"]},
    "D-117 zip": {"zip": "DEF"},
    "D-117 enc": {"alg": "dir", "enc": "A256GCM"},
    "D-118 nested": {"cty": "JWT"},
    "D-121 typ": {"typ": "JWT"},
    "D-121 refresh typ": {"typ": "rt+jwt"},
    "D-121 no typ": {"typ": None},
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_header_of_another_kind_is_no_token_of_ours(
    database: Database, token: str, pair: KeyPair, name: str
) -> None:
    header, payload, signature = token.split(".")
    changed = b64({**unb64(header), **HEADERS[name]})
    signing = tokens._key(pair.public, pair.private).get_op_key("sign")
    own = b64(signing.sign(f"{changed}.{payload}".encode()))  # type: ignore[union-attr]
    keyed = b64(hmac.digest(pair.public, f"{changed}.{payload}".encode(), hashlib.sha256))
    empty = b64(hmac.digest(b"", f"{changed}.{payload}".encode(), hashlib.sha256))
    for given in (signature, own, keyed, empty, ""):
        assert await bearer_of(database, f"{changed}.{payload}.{given}") is None


NOW_S = START_MS // 1_000
CLAIMS: dict[str, dict[str, Any]] = {
    "D-119 past": {"exp": NOW_S},
    "D-119 missing": {"exp": None},
    "D-119 text": {"exp": str(NOW_S + 60)},
    "D-119 1e400": {"exp": 10**400},
    "D-119 negative": {"exp": -1},
    "D-119 float": {"exp": NOW_S + 60.5},
    "D-119 true": {"exp": True},
    "D-119 far": {"exp": NOW_S + 10**6},
    "D-120 issued ahead": {"iat": NOW_S + 120, "exp": NOW_S + 600},
    "D-121 issuer": {"iss": "https://evil.example"},
    "D-121 audience": {"aud": "other-api"},
    "D-121 audiences": {"aud": ["bursar-api"]},
    "D-124 more": {"role": "owner"},
    "D-124 account": {"acc": "1"},
    "D-124 subject": {"sub": 5},
    "D-124 session": {"sid": None},
    "no id": {"jti": None},
}


@pytest.mark.parametrize("name", CLAIMS)
async def test_claims_of_another_kind_are_not_believed_even_if_we_signed_them(
    database: Database, token: str, pair: KeyPair, name: str
) -> None:
    header, payload, _ = token.split(".")
    claims = {**unb64(payload), **CLAIMS[name]}
    signed = tokens.sign(claims, key_id=unb64(header)["kid"], pair=pair)
    assert await bearer_of(database, signed) is None
    assert (
        await bearer_of(
            database, tokens.sign(unb64(payload), key_id=unb64(header)["kid"], pair=pair)
        )
        == BEARER
    )


async def test_a_token_has_one_spelling(database: Database, token: str) -> None:
    header, payload, signature = token.split(".")
    # The last letter of 64 bytes has four bits that say nothing.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    position = last.index(signature[-1])
    spellings = [
        token + "=",
        token + "==",
        token + ".",
        token + "\n",
        " " + token,
        f"{header}.{payload}.",
        f"{header}.{payload}",
        f"{header}..{payload}.{signature}",
        f"{header}=.{payload}.{signature}",
        f"{header}.{payload}.{signature[:-1]}",
        f"{header}.{payload}.{signature[:-1]}{last[position ^ 1]}",
        f"{header}.{payload}.{signature}A",
        f"{b64(unb64(header))}.{payload}.{signature}",
        token.replace("-", "+").replace("_", "/") + "é",
        token.upper(),
        f"{header}.{payload}.{signature}" + "A" * 1_000_000,
    ]
    for spelling in spellings:
        if spelling != token:
            assert await bearer_of(database, spelling) is None, spelling[:80]


async def test_what_was_tampered_with_is_not_believed(database: Database, token: str) -> None:
    header, payload, signature = token.split(".")
    for change in ({"sub": "1"}, {"acc": 2}, {"sid": 1}, {"exp": 10**10}):
        changed = b64({**unb64(payload), **change})
        assert await bearer_of(database, f"{header}.{changed}.{signature}") is None


async def test_the_algorithm_is_the_keys(
    database: Database, token: str, other_pair: tuple[str, KeyPair]
) -> None:
    key_id, pair = other_pair
    signed = tokens.sign(unb64(token.split(".")[1]), key_id=key_id, pair=pair)
    assert await bearer_of(database, signed) is None


async def test_a_new_signing_key_refuses_nothing_that_the_old_one_signed(
    database: Database, clock: Clock
) -> None:
    seen = set()
    newest: list[str] = []
    # Every ten minutes over the change: whatever was issued still counts as long as it should.
    clock.advance(-service.SIGNING_MS // 2)
    async with database.write() as tx:
        await service.issue(tx, bearer=BEARER, vault=VAULT, random_bytes=Randomness())
    clock.advance(service.SIGNING_MS - 1_800_000)
    random_bytes = Randomness()
    random_bytes.calls = 1_000
    for _ in range(8):
        async with database.write() as tx:
            made = await service.issue(tx, bearer=BEARER, vault=VAULT, random_bytes=random_bytes)
        newest = [*newest, made.text][-2:]
        seen.add(tokens.find_key_id(made.text.encode()))
        for text in newest:
            assert await bearer_of(database, text) == BEARER
        clock.advance(600_000)
    assert len(seen) == 2


async def test_workers_that_change_the_signing_key_at_once_refuse_nothing_of_each_other(
    database: Database, clock: Clock
) -> None:
    async def sign_as(worker: int) -> str:
        random_bytes = Randomness()
        random_bytes.calls = 10_000 * worker
        async with database.write() as tx:
            made = await service.issue(tx, bearer=BEARER, vault=VAULT, random_bytes=random_bytes)
        return made.text

    before = await sign_as(1)
    clock.advance(service.SIGNING_MS - 1)
    last = await sign_as(1)
    clock.advance(1)
    found = await asyncio.gather(*(sign_as(worker) for worker in range(2, 6)))
    for text in (last, *found):
        assert await bearer_of(database, text) == BEARER
    assert tokens.find_key_id(last.encode()) == tokens.find_key_id(before.encode())
    assert tokens.find_key_id(last.encode()) not in {
        tokens.find_key_id(text.encode()) for text in found
    }
    # The last token of the old key counts as long as any, however often it is tidied up.
    clock.advance(service.LIFETIME_MS - 2_000)
    await retention.tidy(database, limit_log_days=30)
    assert await bearer_of(database, last) == BEARER


async def test_another_installations_secret_gets_a_signing_key_of_its_own(
    database: Database, token: str
) -> None:
    async with database.write() as tx:
        made = await service.issue(
            tx, bearer=BEARER, vault=Vault(b"w" * 32), random_bytes=lambda n: b"\x07" * n
        )
    assert tokens.find_key_id(made.text.encode()) != tokens.find_key_id(token.encode())
    for text in (made.text, token):
        assert await bearer_of(database, text) == BEARER


async def test_the_database_has_no_private_key_in_the_clear(
    database: Database, pair: KeyPair
) -> None:
    async with database.read() as tx:
        (row,) = await signing_keys.list_since(tx, since_ms=0)
    assert pair.private not in row.sealed_private_key
    assert VAULT.open(row.sealed_private_key, purpose="signing key", about="other") is None
    assert VAULT.open(row.sealed_private_key, purpose="other", about=row.id) is None
    assert (
        Vault(b"w" * 32).open(row.sealed_private_key, purpose="signing key", about=row.id) is None
    )


async def test_a_retired_signing_keys_tokens_end_at_once_and_sessions_go_on(house: House) -> None:
    await house.add("ann@example.test")
    found = await house.sign_in("ann@example.test")
    path = "/v1/operator/signing-keys/rotate"

    async def reads(token: str) -> int:
        return (await house.call("GET", "/v1/account", token=token)).status_code

    async def go_on(token: str) -> dict[str, Any]:
        refreshed = await house.call("POST", "/v1/auth/refresh", {"refresh_token": token})
        next_one: dict[str, Any] = refreshed.json()
        return next_one

    first = await house.api.call("POST", path, caller=OPERATOR, json={})
    assert (first.status_code, first.json()["retired"]) == (200, 0)
    assert await reads(found["access_token"]) == 200
    after = await go_on(found["refresh_token"])
    assert tokens.find_key_id(after["access_token"].encode()) == first.json()["id"]
    retiring = await house.api.call("POST", path, caller=OPERATOR, json={"retire": True})
    assert retiring.json()["retired"] == 2
    for each in (found, after):
        refused = await house.call("GET", "/v1/account", token=each["access_token"])
        assert code_of(refused) == (401, "invalid_token")
    assert await reads((await go_on(after["refresh_token"]))["access_token"]) == 200
    log = await house.api.get("/v1/operator/audit?action=signing_key.rotate", caller=OPERATOR)
    assert [each["after"] for each in log["events"]] == [{"retired": 2}, {"retired": 0}]
    assert log["events"][0]["target"] == f"signing_key:{retiring.json()['id']}"
    refused = await house.api.call("POST", path, json={"retire": True})
    assert code_of(refused) == (401, "wrong_key_type")
