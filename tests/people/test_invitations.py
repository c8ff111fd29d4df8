"""Invitations: good as long as whoever sent them could send them, and never too many letters."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from bursar.core.secrets import KeyKind
from bursar.service import keys
from bursar.service.keys import leaks
from bursar.store import keys as rows
from bursar.store.people import members
from bursar.store.tenants import users
from tests.databases import Clock
from tests.installations import OPERATOR
from tests.people.house import PASSWORD, House, code_of

GONE = (410, "invitation_gone")
SUSPENDED = (403, "account_suspended")
TOO_OFTEN = (429, "too_many_attempts")
NO_ROOM = (503, "mail_overloaded")
USERS = "/v1/account/users"
KEY = KeyKind.PROVISIONING


async def invite(
    house: House, secret: str, email: str = "bob@example.test", role: str = "member"
) -> tuple[int, str]:
    """Invite somebody."""
    body = {"email": email, "role": role}
    response = await house.call("POST", USERS, body, token=secret)
    return (202, "") if response.status_code == 202 else code_of(response)


async def accept(house: House, number: int = -1) -> tuple[int, str]:
    """Accept an invitation, the last one if no other is asked for."""
    body = {"token": house.link_token(number), "password": PASSWORD}
    response = await house.call("POST", "/v1/auth/invitations/accept", body)
    return (201, "") if response.status_code == 201 else code_of(response)


async def make_key(house: House, user_id: int | None = None, **fields: int) -> tuple[int, str]:
    """A provisioning key of the account."""
    async with house.database.write() as tx:
        made = await keys.create(
            tx,
            account_id=1,
            user_id=user_id,
            name="inviting",
            random_bytes=os.urandom,
            kind=KEY,
            **fields,
        )
    return made.key.id, made.secret


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("nothing", (201, "")),
        ("deleted", GONE),
        ("disabled", GONE),
        ("confined", GONE),
        ("expired", GONE),
        ("leaked", GONE),
        ("leaked, rotated and enabled", GONE),
        ("rotated", (201, "")),
        ("rotated at once", GONE),
    ],
)
async def test_an_invitation_ends_with_the_key_that_sent_it(
    house: House, clock: Clock, how: str, expected: tuple[int, str]
) -> None:
    key_id, secret = await make_key(house, expires_ms=clock.now_ms + 86_400_000)
    assert await invite(house, secret) == (202, "")
    clock.advance(1)
    own = {"account_id": 1, "key_id": key_id}
    async with house.database.write() as tx:
        if how == "deleted":
            await keys.delete(tx, **own, kind=KEY)
        elif how == "disabled":
            await rows.update_key(tx, **own, values={"is_enabled": 0})
        elif how == "confined":
            await rows.update_key(tx, **own, values={"environment": "test"})
        elif how.startswith("leaked"):
            await leaks.report(tx, secret=secret, source="test")
        if "rotated" in how:
            grace_s = 60 if how == "rotated" else 0
            await keys.rotate(tx, **own, random_bytes=os.urandom, kind=KEY, grace_s=grace_s)
        if how.endswith("enabled"):
            await rows.update_key(tx, **own, values={"is_enabled": 1})
    if how == "expired":
        clock.advance(86_400_000)
    assert await accept(house) == expected


@pytest.mark.parametrize("how", ["demoted", "disabled", "removed", "disabled everywhere"])
async def test_an_invitation_by_a_key_ends_with_the_role_of_its_user(
    house: House, how: str
) -> None:
    user_id = await house.add("admin@example.test", "admin")
    _, secret = await make_key(house, user_id)
    assert await invite(house, secret, role="admin") == (202, "")
    own = {"account_id": 1, "user_id": user_id}
    async with house.database.write() as tx:
        if how == "demoted":
            await members.update_member(tx, **own, role="member")
        elif how == "disabled":
            await members.update_member(tx, **own, is_enabled=False)
        elif how == "disabled everywhere":
            await members.set_user_enabled(tx, user_id=user_id, is_enabled=False)
    if how == "removed":
        done = await house.api.call("DELETE", f"{USERS}/{user_id}")
        assert done.status_code == 204
        left = await house.api.get("/v1/account/invitations")
        assert left == {"invitations": []}
    assert await accept(house) == GONE


async def test_an_invitation_by_the_operator_ends_with_the_operators_key(house: House) -> None:
    account_id, _ = await house.api.open_account()
    body = {"email": "bob@example.test", "role": "owner"}
    path = f"/v1/operator/accounts/{account_id}/users"
    sent = await house.api.call("POST", path, caller=OPERATOR, json=body)
    assert sent.status_code == 202
    assert await accept(house) == (201, "")
    body["email"] = "carl@example.test"
    sent = await house.api.call("POST", path, caller=OPERATOR, json=body)
    async with house.database.write() as tx:
        for row in await rows.list_keys(tx, account_id=0, kind=KeyKind.OPERATOR):
            await rows.update_key(tx, account_id=0, key_id=row.id, values={"is_enabled": 0})
    assert await accept(house) == GONE


@pytest.mark.parametrize("by", ["person", "key"])
async def test_nobody_joins_an_account_that_is_not_active(house: House, by: str) -> None:
    await house.add("admin@example.test", "admin")
    secret = (
        await house.token("admin@example.test") if by == "person" else (await make_key(house))[1]
    )
    for email in ("bob@example.test", "carl@example.test"):
        assert await invite(house, secret, email) == (202, "")
    for verb, number, expected in (
        ("suspend", 0, SUSPENDED),
        ("resume", 0, (201, "")),
        ("cancel", 1, SUSPENDED),
    ):
        path = f"/v1/operator/accounts/1/{verb}"
        done = await house.api.call("POST", path, caller=OPERATOR, json={})
        assert done.status_code == 200, done.text
        assert await accept(house, number) == expected


async def test_the_sixth_letter_of_a_day_to_one_address_is_refused(house: House) -> None:
    _, secret = await make_key(house)
    found = [await invite(house, secret) for _ in range(6)]
    assert found == [(202, "")] * 5 + [TOO_OFTEN]
    assert len(house.letters) == 5
    response = await house.call("POST", USERS, {"email": "bob@example.test"}, token=secret)
    assert response.headers["retry-after"] == "86400"
    # Neither others, nor who invites the same from another account, wait for that.
    assert await invite(house, secret, "carl@example.test") == (202, "")
    _, other = await house.api.open_account()
    assert await invite(house, other) == (202, "")
    # The last letter that was sent is as good as before.
    assert await accept(house, 4) == (201, "")


async def test_one_account_does_not_fill_the_post(house: House, clock: Clock) -> None:
    _, secret = await make_key(house)
    found = [await invite(house, secret, f"user{number}@example.test") for number in range(202)]
    assert found == [(202, "")] * 200 + [TOO_OFTEN] * 2
    _, other = await house.api.open_account()
    assert await invite(house, other) == (202, "")
    clock.advance(3_600_000)
    assert await invite(house, secret, "later@example.test") == (202, "")


async def test_where_the_post_is_full_nothing_is_written_and_it_is_said(house: House) -> None:
    await house.add("ann@example.test")
    _, secret = await make_key(house)
    room = house.people
    house.use(replace(room, has_room=lambda: False))
    assert await invite(house, secret) == NO_ROOM
    for email in ("ann@example.test", "nobody@example.test"):
        refused = await house.call("POST", "/v1/auth/password-reset", {"email": email})
        assert code_of(refused) == NO_ROOM
        assert refused.headers["retry-after"] == "30"
    house.use(room)
    assert await house.api.get("/v1/account/invitations") == {"invitations": []}
    assert await invite(house, secret) == (202, "")


async def test_a_letter_that_is_not_taken_all_the_same_is_not_lost_without_a_word(
    house: House,
) -> None:
    _, secret = await make_key(house)
    house.use(replace(house.people, post=lambda _: False))
    assert await invite(house, secret) == NO_ROOM


async def test_somebody_without_a_password_is_told_to_choose_one_before_they_accept(
    house: House,
) -> None:
    account_id, _ = await house.api.open_account()
    async with house.database.write() as tx:
        user_id = await users.insert_user(
            tx, email="bob@example.test", name="Bob", password_hash=""
        )
        await users.insert_member(tx, account_id=account_id, user_id=user_id, role="member")
    _, secret = await make_key(house)
    await invite(house, secret)
    number = len(house.letters) - 1
    assert await accept(house) == (409, "no_password")
    await house.call("POST", "/v1/auth/password-reset", {"email": "bob@example.test"})
    body = {"token": house.link_token(), "password": PASSWORD}
    await house.call("POST", "/v1/auth/password-reset/confirm", body)
    assert await accept(house, number) == (201, "")
