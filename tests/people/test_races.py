"""What two do at once with one person, one account or one session: as if one had come first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text

from bursar.core.errors import Conflict
from bursar.service import accounts
from bursar.store.database import POSTGRESQL, Database
from bursar.store.people import members
from bursar.store.tables import counters
from tests.databases import Clock
from tests.people.house import PASSWORD, House, code_of

EMAIL = "ann@example.test"
NEW, OTHER = "a quite different phrase", "another phrase of my own"
WRONG = (401, "invalid_credentials")
ENDED = (401, "invalid_token")
_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def until_waiting(database: Database, tasks: list[asyncio.Task[Any]]) -> None:
    """Until each of these is done or waits for a lock; on SQLite there is one, and it is held."""
    while database.dialect == POSTGRESQL:
        left = sum(not task.done() for task in tasks)
        async with database.read() as tx:
            if (await tx.execute(_WAITING)).scalar_one() >= left:
                return


def after_next(house: House, name: str, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Have something done right after the next time that the pool has done this."""
    pool: Any = house.people.passwords
    real = getattr(pool, name)

    async def once(*given: Any) -> Any:
        found = await real(*given)
        setattr(pool, name, real)
        await meanwhile()
        return found

    setattr(pool, name, once)


async def reset(house: House, password: str = NEW) -> None:
    """Choose a new password with a letter."""
    await house.call("POST", "/v1/auth/password-reset", {"email": EMAIL})
    body = {"token": house.link_token(), "password": password}
    done = await house.call("POST", "/v1/auth/password-reset/confirm", body)
    assert done.status_code == 204, done.text


async def change(house: House, token: str, new: str = OTHER) -> tuple[int, str]:
    """Choose a new password with the present one."""
    body = {"current_password": PASSWORD, "new_password": new}
    done = await house.call("POST", "/v1/auth/password", body, token=token)
    return (204, "") if done.status_code == 204 else code_of(done)


async def reads(house: House, token: str) -> int:
    """What reading the account answers."""
    return (await house.call("GET", "/v1/account", token=token)).status_code


async def test_a_sign_in_beside_a_reset_leaves_no_session_of_the_old_password(
    house: House,
) -> None:
    await house.add(EMAIL)
    await house.call("POST", "/v1/auth/password-reset", {"email": EMAIL})
    body = {"token": house.link_token(), "password": NEW}
    # Whoever begins a session takes a number last: there it is stopped, its password proven.
    async with house.database.write() as tx:
        query = select(counters.c.value).where(counters.c.name == "sessions")
        await tx.execute(query.with_for_update())
        entering = asyncio.create_task(house.try_in(EMAIL))
        await until_waiting(house.database, [entering])
        resetting = asyncio.create_task(house.call("POST", "/v1/auth/password-reset/confirm", body))
        await until_waiting(house.database, [entering, resetting])
    entered, done = await entering, await resetting
    assert done.status_code == 204, done.text
    if entered.status_code == 200:
        assert await reads(house, entered.json()["access_token"]) == 401
    assert (await house.try_in(EMAIL, NEW)).status_code == 200


async def test_a_change_of_password_does_not_undo_a_reset_that_came_between(house: House) -> None:
    await house.add(EMAIL)
    token = await house.token(EMAIL)
    after_next(house, "is_right", lambda: reset(house))
    assert await change(house, token) == WRONG
    assert (await house.try_in(EMAIL, NEW)).status_code == 200
    assert code_of(await house.try_in(EMAIL, OTHER)) == WRONG


@pytest.mark.parametrize("what", ["change", "enrol"])
async def test_what_takes_a_proof_is_not_done_by_a_session_that_ended_meanwhile(
    house: House, what: str
) -> None:
    await house.add(EMAIL)
    token, other = await house.token(EMAIL), await house.token(EMAIL)
    after_next(house, "is_right", lambda: house.call("POST", "/v1/auth/logout-all", token=other))
    if what == "change":
        assert await change(house, token) == ENDED
    else:
        body = {"password": PASSWORD}
        refused = await house.call("POST", "/v1/auth/second-factor", body, token=token)
        assert code_of(refused) == ENDED
    assert (await house.try_in(EMAIL)).status_code == 200


async def test_a_second_factor_is_not_begun_with_a_password_that_was_reset_meanwhile(
    house: House,
) -> None:
    await house.add(EMAIL)
    token = await house.token(EMAIL)
    after_next(house, "is_right", lambda: reset(house))
    body = {"password": PASSWORD}
    refused = await house.call("POST", "/v1/auth/second-factor", body, token=token)
    assert code_of(refused) == WRONG


async def test_a_new_hash_of_the_old_password_does_not_undo_a_reset(house: House) -> None:
    await house.add(EMAIL)
    async with house.database.write() as tx:
        user = await members.find_user(tx, email=EMAIL)
        assert user is not None
        older = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD)
        await members.update_user(tx, user_id=user.id, password_hash=older)
    after_next(house, "hash", lambda: reset(house))
    assert code_of(await house.try_in(EMAIL)) == WRONG
    assert (await house.try_in(EMAIL, NEW)).status_code == 200


async def test_of_two_sign_ins_that_renew_a_hash_at_once_both_are_let_in(house: House) -> None:
    await house.add(EMAIL)
    async with house.database.write() as tx:
        user = await members.find_user(tx, email=EMAIL)
        assert user is not None
        older = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD)
        await members.update_user(tx, user_id=user.id, password_hash=older)
    seen: list[int] = []

    async def meanwhile() -> None:
        seen.append((await house.try_in(EMAIL)).status_code)

    after_next(house, "hash", meanwhile)
    assert (await house.try_in(EMAIL)).status_code == 200
    assert seen == [200]


async def test_an_account_that_was_cancelled_for_good_is_not_resumed_by_who_came_too_late(
    database: Database,
) -> None:
    async with database.write() as tx:
        made = await accounts.create(
            tx, name="Acme", time_zone="UTC", credit_nanos=0, actor="system"
        )
        await accounts.suspend(tx, account_id=made.row.id)

    async def resume() -> str:
        try:
            async with database.write() as tx:
                return (await accounts.resume(tx, account_id=made.row.id)).row.status
        except Conflict as refused:
            return refused.code

    async with database.write() as tx:
        await accounts.cancel(tx, account_id=made.row.id)
        late = asyncio.create_task(resume())
        await until_waiting(database, [late])
    assert await late == "account_cancelled"
    async with database.read() as tx:
        assert (await accounts.get(tx, account_id=made.row.id)).row.status == "cancelled"


async def test_a_refresh_token_is_not_used_up_by_an_account_that_does_not_let_its_person_in(
    house: House, clock: Clock
) -> None:
    await house.add(EMAIL)
    foreign, _ = await house.api.open_account()
    token = (await house.sign_in(EMAIL))["refresh_token"]
    path = "/v1/auth/refresh"
    for account_id in (foreign, 999_999):
        body = {"refresh_token": token, "account_id": account_id}
        assert code_of(await house.call("POST", path, body)) == (401, "invalid_refresh_token")
    clock.advance(11_000)
    assert (await house.call("POST", path, {"refresh_token": token})).status_code == 200
    # One that was used before is told all the same.
    clock.advance(11_000)
    body = {"refresh_token": token, "account_id": foreign}
    assert code_of(await house.call("POST", path, body)) == (401, "refresh_reused")
