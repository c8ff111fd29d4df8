"""Signing in: the same answer for whatever is wrong, and not too often."""

from __future__ import annotations

import asyncio

import pytest

from bursar.store.people import members
from bursar.store.tenants import users
from tests.databases import Clock
from tests.installations import OPERATOR, Api
from tests.people.house import PASSWORD, House, code_of, open_house

WRONG = (401, "invalid_credentials")
TOO_OFTEN = (429, "too_many_attempts")


async def test_a_right_password_gives_tokens_with_which_the_account_can_be_read(
    house: House,
) -> None:
    user_id = await house.add("ann@example.test", "admin")
    found = await house.sign_in("ann@example.test")
    assert (found["user_id"], found["account_id"], found["role"]) == (user_id, 1, "admin")
    assert (found["token_type"], found["expires_in"]) == ("Bearer", 900)
    shown = await house.call("GET", "/v1/account", token=found["access_token"])
    assert shown.json()["id"] == 1
    me = await house.call("GET", "/v1/account/users/me", token=found["access_token"])
    assert (me.json()["id"], me.json()["email"]) == (user_id, "ann@example.test")


async def test_whatever_is_wrong_is_answered_alike(house: House) -> None:
    await house.add("ann@example.test")
    off = await house.add("off@example.test")
    gone = await house.add("gone@example.test")
    shut = await house.add("shut@example.test")
    async with house.database.write() as tx:
        await members.set_user_enabled(tx, user_id=off, is_enabled=False)
        await members.delete_member(tx, account_id=1, user_id=gone)
        await members.update_member(tx, account_id=1, user_id=shut, is_enabled=False)
    tries = [
        {"email": "ann@example.test", "password": "wrong password"},
        {"email": "ann@example.test", "password": PASSWORD + " "},
        {"email": "ann@example.test", "password": ""},
        {"email": "ann@example.test", "password": PASSWORD * 50},
        {"email": "nobody@example.test", "password": PASSWORD},
        {"email": "no address at all", "password": PASSWORD},
        {"email": "off@example.test", "password": PASSWORD},
        {"email": "gone@example.test", "password": PASSWORD},
        {"email": "shut@example.test", "password": PASSWORD},
        {"email": "ann@example.test", "password": PASSWORD, "account_id": 77},
    ]
    answers = set()
    for fields in tries:
        response = await house.call("POST", "/v1/auth/login", fields)
        body = response.json()
        body["error"].pop("request_id")
        answers.add((response.status_code, str(body), str(sorted(response.headers))))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"email": {"$ne": None}, "password": PASSWORD},
        {"email": ["ann@example.test"], "password": PASSWORD},
        {"email": None, "password": PASSWORD},
        {"email": "ann@example.test", "password": 12345678},
        {"email": "ann@example.test"},
        {"email": "ann@example.test", "password": PASSWORD, "role": "owner"},
        {"email": "ann@example.test", "password": PASSWORD, "account_id": "1"},
    ],
)
async def test_fields_of_another_kind_are_refused_unread(
    house: House, fields: dict[str, object]
) -> None:
    await house.add("ann@example.test")
    assert (await house.call("POST", "/v1/auth/login", fields)).status_code == 422


async def test_an_address_has_one_spelling(house: House) -> None:
    await house.add("Ann.Lee+tag@Example.Test")
    plain = "ann.lee+tag@example.test"
    for spelling in (plain, plain.upper(), plain.replace("a", "\uff41", 1)):
        assert (await house.try_in(spelling)).status_code == 200


async def test_an_unknown_person_costs_the_same_hash_as_a_known_one(house: House) -> None:
    await house.add("ann@example.test")
    pool, hashes = house.people.passwords, []
    real = pool._verify

    def count(password_hash: str | None, password: str) -> bool:
        hashes.append(password_hash is None)
        return real(password_hash, password)

    pool._verify = count  # type: ignore[method-assign]
    for email in ("ann@example.test", "nobody@example.test", "off the map"):
        assert code_of(await house.try_in(email, "wrong password")) == WRONG
    assert hashes == [False, True, True]


async def test_the_eleventh_try_of_five_minutes_waits_even_if_it_is_right(
    house: House, clock: Clock
) -> None:
    await house.add("ann@example.test")
    for _ in range(10):
        assert code_of(await house.try_in("ann@example.test", "wrong password")) == WRONG
    clock.advance(60_000)
    refused = await house.try_in("ann@example.test")
    assert code_of(refused) == TOO_OFTEN
    assert refused.headers["retry-after"] == "240"
    clock.advance(240_000)
    assert (await house.try_in("ann@example.test")).status_code == 200


async def test_of_many_tries_at_once_exactly_ten_get_through(house: House) -> None:
    await house.add("ann@example.test")
    found = await asyncio.gather(
        *(house.try_in("ann@example.test", "wrong password") for _ in range(16))
    )
    assert sorted(response.status_code for response in found) == [401] * 10 + [429] * 6


async def test_tries_are_counted_for_all_servers_together_and_over_a_restart(
    house: House, api: Api
) -> None:
    await house.add("ann@example.test")
    for _ in range(6):
        await house.try_in("ann@example.test", "wrong password")
    async with open_house(api) as other:
        for _ in range(4):
            assert code_of(await other.try_in("ann@example.test", "wrong password")) == WRONG
        assert code_of(await other.try_in("ann@example.test")) == TOO_OFTEN
    assert code_of(await house.try_in("ann@example.test")) == TOO_OFTEN


async def test_whoever_guesses_elsewhere_does_not_keep_the_victim_out(house: House) -> None:
    await house.add("ann@example.test")
    await house.sign_in("ann@example.test")
    for number in range(11):
        house.address = f"198.51.100.{number}"
        for _ in range(10):
            await house.try_in("ann@example.test", "wrong password")
    house.address = "198.51.100.250"
    assert code_of(await house.try_in("ann@example.test")) == TOO_OFTEN
    house.address = "192.0.2.1"
    assert (await house.try_in("ann@example.test")).status_code == 200


async def test_an_unknown_person_is_throttled_like_a_known_one(house: House) -> None:
    for _ in range(10):
        assert code_of(await house.try_in("nobody@example.test")) == WRONG
    assert code_of(await house.try_in("nobody@example.test")) == TOO_OFTEN


async def test_one_address_cannot_try_one_password_with_everybody(house: House) -> None:
    await house.add("own@example.test")
    found = []
    for number in range(40):
        found.append((await house.try_in(f"user{number}@example.test")).status_code)
        # One's own good sign-in in between does not begin the count anew.
        if number == 20:
            await house.sign_in("own@example.test")
    assert found.count(401) == 30
    assert found[30:] == [429] * 10


async def test_addresses_of_one_ipv6_network_count_as_one(house: House) -> None:
    for number in range(10):
        house.address = f"2001:db8::{number}"
        assert code_of(await house.try_in("ann@example.test")) == WRONG
    house.address = "2001:db8::ffff"
    assert code_of(await house.try_in("ann@example.test")) == TOO_OFTEN


async def test_a_person_of_two_accounts_signs_in_to_either(house: House) -> None:
    account_id, _ = await house.api.open_account(name="Second")
    user_id = await house.add("ann@example.test", "viewer")
    async with house.database.write() as tx:
        await users.insert_member(tx, account_id=account_id, user_id=user_id, role="owner")
    first = await house.sign_in("ann@example.test")
    second = await house.sign_in("ann@example.test", account_id=account_id)
    assert (first["account_id"], first["role"]) == (1, "viewer")
    assert (second["account_id"], second["role"]) == (account_id, "owner")
    shown = await house.call("GET", "/v1/account", token=second["access_token"])
    assert shown.json()["name"] == "Second"
    moved = await house.call(
        "POST",
        "/v1/auth/refresh",
        {"refresh_token": first["refresh_token"], "account_id": account_id},
    )
    assert moved.json()["role"] == "owner"


async def test_whoever_does_not_say_where_signs_in_to_an_account_that_is_active(
    house: House,
) -> None:
    account_id, _ = await house.api.open_account(name="Second")
    user_id = await house.add("ann@example.test", "viewer")
    async with house.database.write() as tx:
        await users.insert_member(tx, account_id=account_id, user_id=user_id, role="owner")
    for suspended, expected in (((1,), account_id), ((1, account_id), 1)):
        for each in suspended:
            path = f"/v1/operator/accounts/{each}/suspend"
            await house.api.call("POST", path, caller=OPERATOR, json={})
        assert (await house.sign_in("ann@example.test"))["account_id"] == expected
    assert (await house.sign_in("ann@example.test", account_id=1))["account_id"] == 1


async def test_a_body_that_is_too_large_is_refused_before_anything_is_hashed(house: House) -> None:
    response = await house.try_in("ann@example.test", "x" * 100_000)
    assert code_of(response) == (413, "body_too_large")
