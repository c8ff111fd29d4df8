"""Introspection tells of one's own secrets whether they work, and of all others nothing."""

from __future__ import annotations

import os
from typing import Any

import pytest

from bursar.core import secrets
from bursar.core.secrets import KeyKind
from bursar.store.database import Database
from tests.databases import Clock
from tests.installations import OPERATOR, Api
from tests.people.house import House, code_of

EMAIL = "ann@example.test"
PATH = "/v1/auth/introspect"
ANY = "/v1/operator/introspect"
NOTHING = b'{"active":false}'


async def ask(house: House, token: str, caller: str = "provisioning", path: str = PATH) -> Any:
    answer = await house.api.call("POST", path, caller=caller, json={"token": token})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_nobody_asks_without_proof(house: House) -> None:
    for caller, code in ((None, "missing_api_key"), ("inference", "wrong_key_type")):
        for path in (PATH, ANY):
            answer = await house.api.call("POST", path, caller=caller, json={"token": "x"})
            assert code_of(answer) == (401, code)
    operators = await house.api.call("POST", PATH, caller=OPERATOR, json={"token": "x"})
    assert code_of(operators) == (401, "wrong_key_type")


async def test_what_works_is_told_with_whose_it_is(house: House, clock: Clock) -> None:
    user_id = await house.add(EMAIL, "viewer")
    tokens = await house.sign_in(EMAIL)
    own = {"account_id": 1, "user_id": user_id, "role": "viewer", "key_id": None}
    session_id = tokens["session_id"]
    end = -(-(clock.now_ms + 15 * 60_000) // 1_000)
    # Somebody who may only look may ask all the same.
    for caller in ("provisioning", tokens["access_token"]):
        access = await ask(house, tokens["access_token"], caller)
        assert access == {
            **own,
            "active": True,
            "token_type": "access_token",
            "session_id": session_id,
            "exp": end,
        }
        refresh = await ask(house, tokens["refresh_token"], caller)
        assert refresh | {"exp": 0} == {
            **access,
            "token_type": "refresh_token",
            "exp": 0,
        }
    made = await house.api.post(
        "/v1/account/keys",
        {"name": "Key", "expires_at": "2027-01-01T00:00:00Z", "networks": ["203.0.113.0/24"]},
    )
    assert await ask(house, made["key"]) == {
        "active": True,
        "token_type": "inference_key",
        "account_id": 1,
        "user_id": 1,
        "role": None,
        "key_id": made["id"],
        "session_id": None,
        "exp": 1_798_761_600,
    }
    provisioning = await ask(house, house.api.secret("provisioning"))
    assert (provisioning["token_type"], provisioning["role"]) == ("provisioning_key", "owner")


async def test_asking_is_no_use_of_it(house: House, database: Database) -> None:
    made = await house.api.post("/v1/account/keys", {"name": "Key"})
    await house.add(EMAIL)
    tokens = await house.sign_in(EMAIL)
    before = [await house.api.get(f"/v1/account/keys/{made['id']}")]
    for _ in range(3):
        await ask(house, made["key"])
        await ask(house, tokens["refresh_token"])
    assert [await house.api.get(f"/v1/account/keys/{made['id']}")] == before
    body = {"refresh_token": tokens["refresh_token"]}
    assert (await house.call("POST", "/v1/auth/refresh", body)).status_code == 200


async def test_of_another_account_as_little_is_told_as_of_no_secret(house: House) -> None:
    other_id, other = await house.api.open_account(name="B")
    await house.add("b@example.test", "owner", account_id=other_id)
    theirs = await house.sign_in("b@example.test")
    made = await house.api.post("/v1/account/keys", {"name": "Key"}, caller=other)
    unknown = secrets.mint(KeyKind.INFERENCE, random_bytes=os.urandom(32))
    answers = [
        await house.api.call("POST", PATH, json={"token": token})
        for token in (
            *(other, made["key"], theirs["access_token"], theirs["refresh_token"]),
            *(house.api.secret(OPERATOR), unknown, unknown[:-1], "", "junk", "brt_" + "0" * 64),
            *("e" * 5_000, "ey.a.b", "ünïcode", "\x00", theirs["access_token"] + "="),
        )
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, NOTHING)}
    assert len({tuple(sorted(answer.headers)) for answer in answers}) == 1
    for token in (other, made["key"], theirs["access_token"], theirs["refresh_token"]):
        assert (await ask(house, token, OPERATOR, ANY))["account_id"] == other_id
    own = await ask(house, house.api.secret(OPERATOR), OPERATOR, ANY)
    assert (own["token_type"], own["account_id"]) == ("operator_key", None)
    assert await ask(house, "junk", OPERATOR, ANY) == {"active": False}


async def test_what_was_ended_in_any_way_is_good_for_nothing(house: House, clock: Clock) -> None:
    user_id = await house.add(EMAIL)
    tokens = await house.sign_in(EMAIL)
    following = await house.call(
        "POST", "/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}
    )
    assert not (await ask(house, tokens["refresh_token"]))["active"]
    tokens = following.json()
    made = await house.api.post("/v1/account/keys", {"name": "Key"})
    key = f"/v1/account/keys/{made['id']}"
    assert (await ask(house, made["key"]))["active"]
    await house.api.call("PATCH", key, json={"is_enabled": False})
    assert await ask(house, made["key"]) == {"active": False}
    await house.api.call("PATCH", f"/v1/account/users/{user_id}", json={"is_enabled": False})
    for name in ("access_token", "refresh_token"):
        assert await ask(house, tokens[name]) == {"active": False}, name
    await house.api.call("PATCH", f"/v1/account/users/{user_id}", json={"is_enabled": True})
    clock.advance(16 * 60_000)
    assert await ask(house, tokens["access_token"]) == {"active": False}


@pytest.mark.parametrize("body", [{}, {"token": 5}, {"token": None}, {"token": "x", "hint": "y"}])
async def test_a_token_is_a_text_and_nothing_else_is_sent(house: House, body: object) -> None:
    answer = await house.api.call("POST", PATH, json=body)
    assert answer.status_code == 422


async def test_a_key_may_be_asked_about_by_itself(api: Api) -> None:
    secret = api.secret("provisioning")
    answer = await api.call("POST", PATH, json={"token": secret})
    assert answer.json()["active"] is True
