"""Invitations and password resets: whoever has the letter, once, for a while, and nobody else."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select

from bursar.jobs import retention
from bursar.store.people import letters, members
from bursar.store.tables import (
    invitations,
    password_resets,
    sessions,
    sign_in_tries,
    signing_keys,
)
from tests.databases import Clock
from tests.people.house import PASSWORD, House, code_of

NEW = "another phrase of my own"
BAD_TOKEN = (400, "invalid_reset_token")
GONE = (410, "invitation_gone")
DAY_MS = 86_400_000


async def ask(house: House, email: str = "ann@example.test") -> tuple[int, str]:
    """Ask for a reset; status and body."""
    response = await house.call("POST", "/v1/auth/password-reset", {"email": email})
    return response.status_code, response.text


async def choose(house: House, token: str, password: str = NEW) -> tuple[int, str]:
    """Choose a new password."""
    body = {"token": token, "password": password}
    response = await house.call("POST", "/v1/auth/password-reset/confirm", body)
    return (204, "") if response.status_code == 204 else code_of(response)


async def invite(house: House, token: str, email: str, role: str = "member") -> tuple[int, str]:
    """Invite somebody."""
    body = {"email": email, "role": role}
    response = await house.call("POST", "/v1/account/users", body, token=token)
    return (202, "") if response.status_code == 202 else code_of(response)


async def accept(house: House, token: str, **fields: str) -> tuple[int, str]:
    """Accept an invitation."""
    body = {"token": token, "password": NEW, **fields}
    response = await house.call("POST", "/v1/auth/invitations/accept", body)
    return (201, "") if response.status_code == 201 else code_of(response)


# ── Forgotten passwords ─────────────────────────────────────────────────────────────────────────


async def test_a_letter_opens_the_way_to_a_new_password_and_ends_every_session(
    house: House,
) -> None:
    await house.add("ann@example.test")
    token = await house.token("ann@example.test")
    assert (await ask(house))[0] == 202
    assert house.letters[0].to == "ann@example.test"
    assert await choose(house, house.link_token()) == (204, "")
    assert (await house.call("GET", "/v1/account", token=token)).status_code == 401
    assert (await house.try_in("ann@example.test")).status_code == 401
    assert (await house.try_in("ann@example.test", NEW)).status_code == 200


async def test_whoever_asks_does_not_learn_who_is_known(house: House) -> None:
    await house.add("ann@example.test")
    off = await house.add("off@example.test")
    async with house.database.write() as tx:
        await members.set_user_enabled(tx, user_id=off, is_enabled=False)
    answers = {await ask(house, f"{name}@example.test") for name in ("ann", "off", "nobody")}
    assert answers == {(202, '{"requested":true}')}
    assert [letter.to for letter in house.letters] == ["ann@example.test"]


async def test_the_link_is_of_the_configured_address_whatever_the_request_says(
    house: House,
) -> None:
    await house.add("ann@example.test")
    headers = [("host", "evil.example"), ("x-forwarded-host", "evil.example")]
    await house.api.call(
        "POST",
        "/v1/auth/password-reset",
        caller=None,
        json={"email": "ann@example.test"},
        headers=headers,
    )
    assert "https://bursar.example.test/reset-password#blt_" in house.letters[0].text
    assert "evil" not in house.letters[0].text


async def test_the_sixth_letter_of_a_day_is_refused_for_known_and_unknown_alike(
    house: House, clock: Clock
) -> None:
    await house.add("ann@example.test")
    for email in ("ann@example.test", "nobody@example.test"):
        found = [await ask(house, email) for _ in range(6)]
        assert [status for status, _ in found] == [202] * 5 + [429]
    clock.advance(DAY_MS)
    assert (await ask(house))[0] == 202


async def test_a_link_works_once_and_others_of_the_same_person_not_at_all_then(
    house: House,
) -> None:
    await house.add("ann@example.test")
    await ask(house)
    await ask(house)
    first, second = house.link_token(0), house.link_token(1)
    found = await asyncio.gather(*(choose(house, second) for _ in range(3)))
    assert sorted(found) == [(204, ""), BAD_TOKEN, BAD_TOKEN]
    assert await choose(house, first) == BAD_TOKEN


async def test_a_link_ends_after_an_hour_and_with_the_address_it_was_sent_to(
    house: House, clock: Clock
) -> None:
    user_id = await house.add("ann@example.test")
    await ask(house)
    clock.advance(3_600_000)
    assert await choose(house, house.link_token()) == BAD_TOKEN
    async with house.database.write() as tx:
        await letters.insert_reset(
            tx,
            user_id=user_id,
            email="former@example.test",
            token_hash=b"x" * 32,
            expires_ms=tx.now_ms + 1_000,
        )
        found = await letters.find_reset(tx, token_hash=b"x" * 32)
    assert found is not None
    assert (await house.try_in("ann@example.test")).status_code == 200


@pytest.mark.parametrize("token", ["", "blt_", "blt_" + "0" * 32, "blt_" + "é" * 32, "x" * 999])
async def test_what_is_no_token_of_a_letter_is_refused(house: House, token: str) -> None:
    assert await choose(house, token) == BAD_TOKEN
    assert await accept(house, token) == GONE


async def test_a_weak_password_does_not_use_the_link_up(house: House) -> None:
    await house.add("ann@example.test")
    await ask(house)
    for weak in ("password1", "ann@example.test", "short", "x" * 129):
        assert await choose(house, house.link_token(), weak) == (422, "weak_password")
    assert await choose(house, house.link_token()) == (204, "")


# ── Invitations ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def admin(house: House) -> str:
    """An admin's access token."""
    await house.add("admin@example.test", "admin")
    return await house.token("admin@example.test")


async def test_whoever_is_invited_becomes_a_member_in_the_role_of_the_invitation(
    house: House, admin: str
) -> None:
    assert await invite(house, admin, "Bob@Example.test", "viewer") == (202, "")
    assert house.letters[0].to == "bob@example.test"
    listed = await house.call("GET", "/v1/account/invitations", token=admin)
    assert [row["email"] for row in listed.json()["invitations"]] == ["bob@example.test"]
    assert await accept(house, house.link_token(), name="Bob") == (201, "")
    found = await house.sign_in("bob@example.test", NEW)
    assert (found["account_id"], found["role"]) == (1, "viewer")
    listed = await house.call("GET", "/v1/account/invitations", token=admin)
    assert listed.json() == {"invitations": []}


async def test_an_invitation_works_once_for_its_own_address_and_for_a_week(
    house: House, admin: str, clock: Clock
) -> None:
    await invite(house, admin, "bob@example.test")
    token = house.link_token()
    assert await accept(house, token, email="eve@example.test") == GONE
    assert await accept(house, token, email="BOB@example.test") == (201, "")
    assert await accept(house, token) == GONE
    await invite(house, admin, "carl@example.test")
    clock.advance(7 * DAY_MS)
    assert await accept(house, house.link_token()) == GONE


async def test_a_later_letter_takes_the_place_of_an_earlier_one_and_can_be_taken_back(
    house: House, admin: str
) -> None:
    await invite(house, admin, "bob@example.test")
    await invite(house, admin, "bob@example.test", "viewer")
    assert await accept(house, house.link_token(0)) == GONE
    listed = await house.call("GET", "/v1/account/invitations", token=admin)
    (row,) = listed.json()["invitations"]
    path = f"/v1/account/invitations/{row['id']}"
    assert (await house.call("DELETE", path, token=admin)).status_code == 204
    assert await accept(house, house.link_token(1)) == GONE
    assert (await house.call("DELETE", path, token=admin)).status_code == 404


async def test_a_known_person_proves_their_password_and_keeps_it(house: House, admin: str) -> None:
    account_id, stranger = await house.api.open_account()
    await house.add("bob@example.test", "owner", account_id=account_id)
    await invite(house, admin, "bob@example.test")
    wrong = await accept(house, house.link_token(), password="wrong password")
    assert wrong == (401, "invalid_credentials")
    assert await accept(house, house.link_token(), password=PASSWORD) == (201, "")
    assert (await house.try_in("bob@example.test", account_id=1)).status_code == 200
    assert (await house.try_in("bob@example.test", account_id=account_id)).status_code == 200
    own = await house.call("GET", "/v1/account", token=stranger)
    assert own.json()["id"] == account_id


async def test_nobody_invites_beyond_their_own_role_when_writing_or_when_it_is_used(
    house: House, admin: str
) -> None:
    assert await invite(house, admin, "bob@example.test", "owner") == (403, "exceeds_own_role")
    assert await invite(house, admin, "bob@example.test", "king") == (422, "invalid_value")
    assert await invite(house, admin, "bob@example.test", "admin") == (202, "")
    async with house.database.write() as tx:
        found = await members.find_by_email(tx, account_id=1, email="admin@example.test")
        assert found is not None
        await members.update_member(tx, account_id=1, user_id=found.user_id, role="viewer")
    assert await accept(house, house.link_token()) == GONE
    assert await invite(house, admin, "carl@example.test") == (403, "insufficient_role")


async def test_a_member_is_not_invited_again(house: House, admin: str) -> None:
    await house.add("bob@example.test")
    assert await invite(house, admin, "BOB@example.test") == (409, "already_member")
    assert await invite(house, admin, "no address") == (422, "invalid_email")


async def test_two_who_accept_at_once_make_one_person(house: House, admin: str) -> None:
    await invite(house, admin, "bob@example.test")
    found = await asyncio.gather(*(accept(house, house.link_token()) for _ in range(4)))
    assert found.count((201, "")) == 1
    assert {status for status, _ in found} == {201, 410}


async def test_invitations_of_several_accounts_accepted_at_once_make_one_person(
    house: House,
) -> None:
    for _ in range(4):
        _, provisioning = await house.api.open_account()
        assert await invite(house, provisioning, "bob@example.test") == (202, "")
    tokens = [house.link_token(number) for number in range(4)]
    found = await asyncio.gather(*(accept(house, token) for token in tokens))
    # Whoever comes late enough is known already, and proves it.
    assert (201, "") in found
    assert set(found) <= {(201, ""), (409, "person_exists")}
    late = [
        accept(house, token)
        for token, (status, _) in zip(tokens, found, strict=True)
        if status != 201
    ]
    assert await asyncio.gather(*late) == [(201, "")] * len(late)


async def test_whoever_signs_up_elsewhere_in_the_meantime_is_asked_for_their_password(
    house: House, admin: str
) -> None:
    await invite(house, admin, "bob@example.test")
    real = house.people.passwords.hash

    async def meanwhile(password: str) -> str:
        await house.add("bob@example.test", account_id=99)
        return await real(password)

    house.people.passwords.hash = meanwhile  # type: ignore[method-assign]
    assert await accept(house, house.link_token()) == (409, "person_exists")
    assert await accept(house, house.link_token(), password=PASSWORD) == (201, "")


async def test_what_is_over_is_forgotten_and_what_counts_is_kept(
    house: House, admin: str, clock: Clock
) -> None:
    await ask(house, "admin@example.test")
    await invite(house, admin, "bob@example.test")
    await house.try_in("admin@example.test", "wrong password")
    counted = (sessions, password_resets, invitations, sign_in_tries, signing_keys)

    async def count() -> list[int]:
        await retention.tidy(house.database, limit_log_days=30)
        async with house.database.read() as tx:
            queries = [select(func.count()).select_from(table) for table in counted]
            return [int((await tx.execute(query)).scalar_one()) for query in queries]

    assert await count() == [1, 1, 1, 10, 1]
    clock.advance(2 * DAY_MS)
    assert await count() == [1, 0, 1, 0, 1]
    clock.advance(30 * DAY_MS)
    assert await count() == [1, 0, 0, 0, 0]
    clock.advance(120 * DAY_MS)
    assert await count() == [0, 0, 0, 0, 0]
