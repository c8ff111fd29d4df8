"""Sign-ins are noted, good and refused, and whoever tries cannot fill the log; settings are too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bursar.config import Settings
from bursar.service.audit import refusals, settings
from bursar.store.database import Database
from tests.audit import logs
from tests.databases import Clock
from tests.installations import Api
from tests.people.house import PASSWORD, House, code_of

HOUR_MS = 3_600_000
EMAIL = "ann@example.test"
REFUSED = "session.refuse"


async def test_a_good_sign_in_says_who_and_with_what(house: House) -> None:
    user_id = await house.add(EMAIL)
    made = await house.sign_in(EMAIL)
    (row,) = await logs.read(house.database, "session.sign_in")
    assert (row.account_id, row.actor, row.address) == (1, f"user:{user_id}", house.address)
    assert row.target == f"session:{made['session_id']}"
    assert row.after["user_id"] == user_id


async def test_a_refused_sign_in_is_in_the_log_of_who_it_was_about(house: House) -> None:
    user_id = await house.add(EMAIL)
    await house.try_in(EMAIL, "wrong")
    await house.try_in("nobody@example.test", "wrong")
    await house.try_in("no address at all", "wrong")
    rows = await logs.read(house.database, REFUSED)
    reason = "invalid_credentials"
    assert [(row.account_id, row.target, row.after) for row in rows] == [
        (0, "user:unknown", {"email": "nobody@example.test", "reason": reason}),
        (0, "user:unknown", {"email": "", "reason": reason}),
        (1, f"user:{user_id}", {"email": EMAIL, "reason": reason}),
    ]
    assert {(row.actor, row.address) for row in rows} == {("anybody", house.address)}


async def test_the_same_refusal_is_noted_once_an_hour(house: House, clock: Clock) -> None:
    await house.add(EMAIL)
    for _ in range(12):
        await house.try_in(EMAIL, "wrong")
    rows = await logs.read(house.database, REFUSED)
    assert [row.after["reason"] for row in rows] == ["invalid_credentials", "too_many_attempts"]
    clock.advance(HOUR_MS)
    await house.try_in(EMAIL, "wrong")
    assert len(await logs.read(house.database, REFUSED)) == 3


async def test_no_log_gets_more_than_its_most_of_refusals_in_an_hour(
    house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MOST_AN_HOUR", 5)
    await house.add(EMAIL)
    for number in range(8):
        house.address = f"203.0.113.{number}"
        await house.try_in(f"nobody{number}@example.test", "wrong")
    await house.try_in(EMAIL, "wrong")
    rows = await logs.read(house.database, REFUSED)
    assert [row.account_id for row in rows] == [0] * 5 + [1]
    clock.advance(HOUR_MS)
    await house.try_in("nobody@example.test", "wrong")
    assert len(await logs.read(house.database, REFUSED)) == 7


async def test_tries_at_the_same_moment_are_noted_once(house: House) -> None:
    await house.add(EMAIL)
    answers = await asyncio.gather(*(house.try_in(EMAIL, "wrong") for _ in range(6)))
    assert {code_of(each) for each in answers} == {(401, "invalid_credentials")}
    assert len(await logs.read(house.database, REFUSED)) == 1


async def test_a_token_that_comes_twice_is_noted_where_its_session_is(
    house: House, clock: Clock
) -> None:
    await house.add(EMAIL)
    first = await house.sign_in(EMAIL)
    body = {"refresh_token": first["refresh_token"]}
    assert (await house.call("POST", "/v1/auth/refresh", body)).status_code == 200
    clock.advance(60_000)
    assert code_of(await house.call("POST", "/v1/auth/refresh", body)) == (401, "refresh_reused")
    (row,) = await logs.read(house.database, "session.reuse")
    assert (row.account_id, row.target) == (1, f"session:{first['session_id']}")
    assert (await logs.read(house.database))[-1].action == "session.reuse"


async def test_no_secret_gets_into_a_log_whatever_field_it_is_put_into(house: House) -> None:
    # In the form of a key; of no key that there is, because the fields themselves are kept.
    form = f"bsk_{'canary' * 6}"
    labels = {"a": form[:40]}
    body = {"name": f"my {form}", "description": form, "labels": labels}
    made = await house.api.post("/v1/account/keys", body)
    await house.api.post("/v1/account/projects", {"name": form})
    await house.add(EMAIL, "owner")
    tokens = await house.sign_in(EMAIL)
    await house.try_in(f"{form}@example.test", PASSWORD)
    await house.call("POST", "/v1/auth/revoke", {"token": tokens["refresh_token"]})
    text = str(await logs.read(house.database))
    assert "my bsk_…" in text
    for canary in (PASSWORD, made["key"], tokens["access_token"], tokens["refresh_token"][4:]):
        assert canary not in text
    assert form not in text


async def start(database: Database, **values: Any) -> None:
    """A server starts with these settings."""
    found = Settings(**{"sandbox_enabled": True, **values})
    async with database.write() as tx:
        await settings.note_start(tx, values=found.model_dump(mode="json"))


async def test_a_start_with_other_settings_than_the_last_is_noted(api: Api) -> None:
    database = api.database
    address = "postgresql+asyncpg://bursar:canary-of-a-database@db.test/bursar"
    upstream = {"name": "a", "base_url": "http://a.test/v1", "models": ["*"]}
    rest: dict[str, Any] = {"database_url": address, "upstreams": [upstream]}
    await start(database, mail_password="canary-of-mail", **rest)
    await start(database, mail_password="canary-of-mail", **rest)
    await start(database, port=9_000)
    first, second = await logs.read(database, "settings.start")
    assert (first.account_id, first.actor, first.target) == (0, "system", "settings")
    assert first.before["port"] is None
    assert first.after["port"] == 8_080
    assert (second.before["port"], second.after["port"]) == (8_080, 9_000)
    assert second.after.keys() == {"port", "upstreams", "mail_password", "database_url"}
    assert "canary" not in str([first, second])


async def test_of_servers_that_start_at_once_one_notes_the_settings(api: Api) -> None:
    await asyncio.gather(*(start(api.database, port=9_000) for _ in range(5)))
    assert len(await logs.read(api.database, "settings.start")) == 1
