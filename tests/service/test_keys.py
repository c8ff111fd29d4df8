"""Keys are made with their limit, changed field by field, and deleted for good."""

from __future__ import annotations

import asyncio
import os
from functools import partial

import pytest

from bursar.core import secrets
from bursar.core.errors import Conflict, Forbidden, Invalid, NotFound
from bursar.core.secrets import KeyKind
from bursar.service import accounts, keys, projects
from bursar.service.access import ProvisioningPrincipal
from bursar.service.keys import KeyChange, NewKey
from bursar.store import changes, credentials
from bursar.store import keys as rows
from bursar.store.database import Change, Database
from bursar.store.limits import allowances
from bursar.store.tenants import users
from tests.databases import Clock
from tests.installations import NANOS, Randomness

pytestmark = pytest.mark.usefixtures("installation")
YEAR_MS = 365 * 86_400_000


async def open_account(database: Database) -> int:
    async with database.write() as tx:
        opened = await accounts.create(
            tx, name="Other", time_zone="UTC", credit_nanos=0, actor="test"
        )
    return opened.row.id


async def make(database: Database, **fields: object) -> NewKey:
    given = {
        "account_id": 1,
        "user_id": None,
        "name": "Production",
        "random_bytes": Randomness(),
        **fields,
    }
    async with database.write() as tx:
        return await keys.create(tx, **given)  # type: ignore[arg-type]


async def change(database: Database, key_id: int, **fields: object) -> rows.KeyRow:
    async with database.write() as tx:
        return await keys.update(
            tx,
            account_id=1,
            key_id=key_id,
            change=KeyChange(**fields),  # type: ignore[arg-type]
        )


async def news_of(database: Database, seen: int = 0) -> list[Change]:
    async with database.read() as tx:
        return await changes.list_after(tx, cursor=seen)


async def test_a_key_is_made_with_its_limit(database: Database, clock: Clock) -> None:
    made = await make(database, credit_limit_nanos=5, expires_ms=clock.now_ms + 1)
    assert made.key.name == "Production"
    assert made.key.is_enabled
    assert made.key.credit_limit_nanos == 5
    assert secrets.parse(made.secret) is KeyKind.INFERENCE
    assert made.secret.startswith(made.key.prefix)
    assert made.secret.endswith(made.key.last6)
    assert made.secret not in repr(made)
    async with database.read() as tx:
        row = await credentials.find_credential(tx, secret_hash=secrets.digest(made.secret))
    assert row is not None
    limits = {limit.ref.scope: limit.limit for limit in row.allowances}
    assert limits == {"wallet": 100 * NANOS, f"key:{made.key.id}": 5}


async def test_an_unlimited_key_has_an_allowance_that_counts(database: Database) -> None:
    made = await make(database)
    async with database.read() as tx:
        scope = f"key:{made.key.id}"
        limits = await allowances.list_of_scope(tx, account_id=1, scope=scope)
    assert [(row.limit, row.used) for row in limits] == [(None, 0)]


async def test_every_change_is_announced(database: Database) -> None:
    made = await make(database)
    key_id = made.key.id
    key, limit = ("key", str(key_id)), ("allowance", f"key:{key_id}/cost/lifetime")
    steps: list[tuple[dict[str, object], list[tuple[str, str]]]] = [
        ({"name": "New"}, [key]),
        ({"is_enabled": False}, [key]),
        ({"credit_limit_nanos": 1}, [limit]),
        ({"name": "Newer", "credit_limit_nanos": None}, [limit, key]),
        ({}, []),
    ]
    assert [(c.topic, c.subject) for c in await news_of(database)][-1] == key
    for fields, announced in steps:
        seen = (await news_of(database))[-1].id
        await change(database, key_id, **fields)
        news = await news_of(database, seen)
        assert [(c.topic, c.subject) for c in news] == announced, fields
    seen = (await news_of(database))[-1].id
    async with database.write() as tx:
        await keys.delete(tx, account_id=1, key_id=key_id)
    assert [(c.topic, c.subject) for c in await news_of(database, seen)] == [key, limit]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"name": ""}, "invalid_name", "name"),
        ({"name": "\u200b \u200d"}, "invalid_name", "name"),
        ({"name": "x" * 256}, "name_too_long", "name"),
        ({"name": "a\x00b"}, "invalid_characters", "name"),
        ({"name": "a\u202eb"}, "invalid_characters", "name"),
        ({"credit_limit_nanos": -1}, "invalid_amount", "credit_limit"),
        ({"expires_ms": 0}, "invalid_expiry", "expires_at"),
        ({"expires_ms": 1_795_264_496_789}, "invalid_expiry", "expires_at"),
        ({"expires_ms": 1_795_264_496_789 + 100 * YEAR_MS}, "invalid_expiry", "expires_at"),
    ],
)
async def test_a_key_that_breaks_a_rule_is_neither_made_nor_changed(
    database: Database, fields: dict[str, object], code: str, param: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        await make(database, **fields)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    made = await make(database)
    with pytest.raises(Invalid) as refusal:
        await change(database, made.key.id, **fields)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    async with database.read() as tx:
        assert await keys.get(tx, account_id=1, key_id=made.key.id) == made.key


async def test_what_is_not_given_stays(database: Database, clock: Clock) -> None:
    expires_ms = clock.now_ms + YEAR_MS
    made = await make(database, credit_limit_nanos=7, expires_ms=expires_ms)
    row = await change(database, made.key.id, name="Other")
    assert (row.name, row.is_enabled) == ("Other", True)
    assert (row.credit_limit_nanos, row.expires_ms) == (7, expires_ms)
    row = await change(database, made.key.id, credit_limit_nanos=None, is_enabled=False)
    assert (row.name, row.is_enabled) == ("Other", False)
    assert (row.credit_limit_nanos, row.expires_ms) == (None, expires_ms)
    row = await change(database, made.key.id, expires_ms=None)
    assert (row.is_enabled, row.expires_ms) == (False, None)


async def test_a_rename_does_not_bring_back_a_key_that_is_disabled_meanwhile(
    postgres_database_url: str,
) -> None:
    database = Database(postgres_database_url, clock_ms=Clock())
    await open_account(database)
    made = await make(database)
    async with database.write() as tx:
        await keys.update(tx, account_id=1, key_id=made.key.id, change=KeyChange(is_enabled=False))
        rename = asyncio.create_task(change(database, made.key.id, name="Renamed"))
        await asyncio.sleep(0.1)
    row = await rename
    assert (row.name, row.is_enabled) == ("Renamed", False)
    await database.close()


async def test_a_deleted_key_is_gone_but_its_row_stays(database: Database) -> None:
    made = await make(database)
    key_id = made.key.id
    async with database.write() as tx:
        await keys.delete(tx, account_id=1, key_id=key_id)
    async with database.write() as tx:
        assert key_id not in [row.id for row in await keys.list_keys(tx, account_id=1)]
        with pytest.raises(NotFound):
            await keys.get(tx, account_id=1, key_id=key_id)
        with pytest.raises(NotFound):
            await keys.update(tx, account_id=1, key_id=key_id, change=KeyChange(name="x"))
        with pytest.raises(NotFound):
            await keys.delete(tx, account_id=1, key_id=key_id)
        assert (await rows.list_names(tx, account_id=1))[key_id] == "Production"
        credential = await credentials.find_credential(tx, secret_hash=secrets.digest(made.secret))
    assert credential is not None
    assert credential.is_deleted


async def test_another_accounts_key_and_other_kinds_are_unknown(database: Database) -> None:
    await open_account(database)
    foreign = await make(database, account_id=2)
    async with database.write() as tx:
        for key_id in (1, 2, foreign.key.id, 999):
            with pytest.raises(NotFound):
                await keys.get(tx, account_id=1, key_id=key_id)
            with pytest.raises(NotFound):
                await keys.update(tx, account_id=1, key_id=key_id, change=KeyChange(name="x"))
            with pytest.raises(NotFound):
                await keys.delete(tx, account_id=1, key_id=key_id)
        assert (await keys.get(tx, account_id=2, key_id=foreign.key.id)) == foreign.key


async def test_an_account_cannot_have_keys_without_end(database: Database) -> None:
    await make(database, max_keys=2)
    with pytest.raises(Conflict) as refusal:
        await make(database, max_keys=2)
    assert refusal.value.code == "too_many_keys"


async def test_a_member_makes_keys_for_themselves_alone(database: Database) -> None:
    async with database.write() as tx:
        ids = []
        for name, role in (("ann", "member"), ("bob", "viewer"), ("eve", None)):
            email = f"{name}@example.com"
            user_id = await users.insert_user(tx, email=email, name=name, password_hash="")
            if role is not None:
                await users.insert_member(tx, account_id=1, user_id=user_id, role=role)
            ids.append(user_id)
        project = await projects.create(tx, account_id=1, name="Search")
    ann, bob, eve = ids
    admin = ProvisioningPrincipal(key_id=2, account_id=1, user_id=1)
    member = ProvisioningPrincipal(key_id=9, account_id=1, user_id=ann)
    own = await make(database, user_id=ann, by=member)
    assert own.key.user_id == ann
    for other in (bob, None):
        with pytest.raises(Forbidden) as refused:
            await make(database, user_id=other, by=member)
        assert (refused.value.code, refused.value.param) == ("exceeds_own_rights", "user_id")
        assert (await make(database, user_id=other, by=admin)).key.user_id == other
    for by in (admin, member, None):
        with pytest.raises(NotFound):
            await make(database, user_id=eve, by=by)
    settings = keys.KeySettings(project_id=project.id)
    with pytest.raises(Forbidden) as refused:
        await make(database, user_id=ann, by=member, settings=settings)
    assert refused.value.param == "project_id"
    for by, may in ((member, False), (admin, True)):
        async with database.write() as tx:
            try:
                await projects.add_member(
                    tx, account_id=1, project_id=project.id, user_id=ann, by=by
                )
            except Forbidden:
                assert not may
            else:
                assert may
    made = await make(database, user_id=ann, by=member, settings=settings)
    assert made.key.project_id == project.id


async def test_two_rotations_at_once_leave_two_secrets_that_were_given_out(
    database: Database,
) -> None:
    made = await make(database)
    randomness = Randomness()

    async def rotate() -> str:
        return (
            await database.transact(
                lambda tx: keys.rotate(
                    tx, account_id=1, key_id=made.key.id, random_bytes=randomness
                )
            )
        ).secret

    given = await asyncio.gather(*[rotate() for _ in range(4)])
    assert len(set(given)) == 4
    async with database.read() as tx:
        known = await credentials.find_all(
            tx, secret_hashes=[secrets.digest(secret) for secret in (made.secret, *given)]
        )
    assert len(known) == 2
    assert secrets.digest(made.secret) not in known
    assert {row.expires_ms is None for row in known.values()} == {True, False}


async def test_a_key_never_gets_into_a_project_that_is_being_deleted(
    postgres_database_url: str,
) -> None:
    database = Database(postgres_database_url, clock_ms=Clock())
    await open_account(database)
    for is_first in (True, False):
        async with database.write() as tx:
            project = await projects.create(tx, account_id=1, name="Search")
        settings = keys.KeySettings(project_id=project.id)
        delete = partial(projects.delete, account_id=1, project_id=project.id)
        async with database.write() as tx:
            if is_first:
                await delete(tx)
                other = asyncio.create_task(make(database, settings=settings))
            else:
                await keys.create(
                    tx,
                    account_id=1,
                    user_id=None,
                    name="Key",
                    random_bytes=os.urandom,
                    settings=settings,
                )
                other = asyncio.create_task(database.transact(delete))
            await asyncio.sleep(0.1)
        with pytest.raises(NotFound if is_first else Conflict):
            await other
    await database.close()
