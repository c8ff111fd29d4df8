"""A former version's database becomes this one's: all of it or nothing, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.exc import DBAPIError

from bursar.core import secrets
from bursar.core.allowances import AllowanceRef
from bursar.core.secrets import KeyKind
from bursar.service import access, keys
from bursar.service.access import InferencePrincipal
from bursar.service.keys import KeyChange
from bursar.service.verify import find_differences
from bursar.store import migrations
from bursar.store.database import Database, ReadTx, sqlite_url
from bursar.store.limits import allowances
from tests import former
from tests.databases import START_MS, Clock
from tests.installations import Installation, Randomness, a_charge, lease, use
from tests.postgres import PostgresServer

# What a row has after the upgrade that it had no room for before.
NEW_VALUES: dict[str, dict[str, object]] = {
    "accounts": {"plan_id": 1, "currency": "USD", "features": "{}"},
    "allowances": {"soft_amount": None, "origin": "own", "created_ms": 0},
    "keys": {
        "project_id": None,
        "environment": "live",
        "description": "",
        "labels": None,
        "label_names": None,
        "models": None,
        "endpoints": None,
        "networks": None,
        "previous_hash": None,
        "previous_until_ms": None,
        "rotated_ms": None,
        "leaked_ms": None,
    },
    "members": {"disabled_ms": None, "name": None, "provider": None},
    "usage_daily": {"last_ms": 0},
    "usage_hourly": {"last_ms": 0},
    "users": {"disabled_ms": None},
}
SECRET = secrets.mint(KeyKind.INFERENCE, random_bytes=b"former secret of 32 random bytes")
KEY_ROW = {
    "account_id": 1,
    "id": 90,
    "kind": "inference",
    "name": "made by the former version",
    "secret_hash": secrets.digest(SECRET),
    "prefix": "bsk_",
    "last6": "000000",
    "created_ms": START_MS,
}


@pytest.fixture
def former_url(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database without any table, of the same kind as `database`."""
    if database.path is not None:
        yield sqlite_url(tmp_path / "former.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.database() as url:
        yield url


@pytest.fixture
async def rows(
    database: Database, installation: Installation, former_url: str, clock: Clock
) -> former.Rows:
    """What the former version's database has in it, at `former_url`."""
    await _live(database, clock)
    return await former.make(_address(database), former_url)


@pytest.fixture
async def old(rows: former.Rows, former_url: str, clock: Clock) -> AsyncIterator[Database]:
    """The former version's database, opened by this one."""
    found = Database(former_url, clock_ms=clock)
    yield found
    await found.close()


async def _live(database: Database, clock: Clock) -> None:
    """Keys of every kind, charges of two days, and a worker that holds leases."""
    random_bytes = Randomness()
    async with database.write() as tx:
        made = [
            await keys.create(
                tx,
                account_id=1,
                user_id=1,
                name=name,
                random_bytes=random_bytes,
                credit_limit_nanos=limit,
                expires_ms=START_MS + 90_000_000 if name == "ending" else None,
            )
            for name, limit in (("limited", 5_000), ("ending", None), ("off", 7), ("gone", None))
        ]
        ids = [each.key.id for each in made]
        await keys.update(tx, account_id=1, key_id=ids[2], change=KeyChange(is_enabled=False))
        await keys.delete(tx, account_id=1, key_id=ids[3])
    await use(database, a_charge("first", 700, key_id=ids[0]), a_charge("second", 40))
    clock.advance(86_400_000)
    await use(database, a_charge("third", 900, key_id=ids[1], at_ms=clock.now_ms))
    await lease(database, allowances.wallet(1), 1_234)
    await lease(database, AllowanceRef(1, f"key:{ids[0]}", "cost", "lifetime"), 300)


async def test_an_upgrade_keeps_every_row_and_says_what_is_new(
    old: Database, rows: former.Rows
) -> None:
    assert {"keys", "leases", "transfers", "usage_events", "usage_daily"} <= rows.keys()
    assert all(rows[name] for name in ("keys", "leases", "usage_events", "usage_daily"))
    assert await migrations.upgrade(old) == former.FIRST
    assert await migrations.is_current(old)
    async with old.read() as tx:
        found = await former.read(tx, await former.find_tables(tx))
    for name, before in rows.items():
        expected = [{**row, **NEW_VALUES.get(name, {})} for row in before]
        if name == "counters":
            new = "alerts identities invitations passkeys plans projects sessions".split()
            expected += [{"name": each, "value": int(each == "plans")} for each in new]
            expected.sort(key=lambda row: str(row["name"]))
            found[name].sort(key=lambda row: str(row["name"]))
        assert found[name] == expected, name
    assert found["plans"] == [{"id": 1, "name": "default", "created_ms": 0}]
    assert {name for name in found if found[name] and name not in rows} == {"plans"}


async def test_the_books_are_right_after_an_upgrade_and_old_secrets_open_what_they_opened(
    old: Database, installation: Installation, clock: Clock
) -> None:
    await migrations.upgrade(old)
    async with old.read() as tx:
        assert [each async for each in find_differences(tx, now_ms=clock.now_ms)] == []
        assert await _whose(tx, installation.inference_key) == 3
    await use(old, a_charge("after", 55, at_ms=clock.now_ms))
    async with old.read() as tx:
        assert [each async for each in find_differences(tx, now_ms=clock.now_ms)] == []


async def test_an_upgrade_that_is_cut_off_at_any_statement_leaves_the_former_database(
    old: Database, rows: former.Rows
) -> None:
    total = 0
    for number in range(1, 1_000):
        with _failing(old, at=number) as seen:
            try:
                await migrations.upgrade(old)
            except ConnectionError:
                pass
            else:
                total = len(seen)
                break
        assert await migrations.current(old) == former.FIRST
    assert 30 < total < 200
    async with old.read() as tx:
        found = await former.read(tx, await former.find_tables(tx))
    assert len(found["keys"]) == len(rows["keys"])
    assert await migrations.is_current(old)


async def test_what_a_server_of_the_former_version_writes_is_still_accepted(
    old: Database, clock: Clock
) -> None:
    """Servers are replaced one after the other: the first new one has migrated."""
    async with old.read() as tx:
        tables = await former.find_tables(tx)
    await migrations.upgrade(old)
    async with old.write() as tx:
        await tx.connection.execute(insert(tables["keys"]).values(KEY_ROW))
        limit = {"scope": "key:90", "resource": "cost", "window_name": "lifetime"}
        await tx.connection.execute(insert(tables["allowances"]).values(account_id=1, **limit))
        daily = tables["usage_daily"]
        kept = (await tx.connection.execute(daily.select())).mappings().first()
        assert kept is not None
        cell = {**kept, "model": "another", "requests": 0, "cost_nanos": 0}
        await tx.connection.execute(insert(daily).values(cell))
    async with old.read() as tx:
        assert await _whose(tx, SECRET) == 90


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_an_upgrade_gives_way_to_traffic_after_a_second(old: Database, clock: Clock) -> None:
    """What waits for a lock on a table makes every request wait behind it."""
    async with old.write() as tx:
        await tx.driver("SELECT id FROM keys WHERE id = 3 FOR UPDATE")
        beside = Database(_address(old), clock_ms=clock)
        began = time.monotonic()
        with pytest.raises(DBAPIError, match="lock timeout"):
            await migrations.upgrade(beside)
        assert 0.9 < time.monotonic() - began < 10
        await beside.close()
    await migrations.upgrade(old)
    assert await migrations.is_current(old)


async def test_a_database_that_was_upgraded_is_refused_by_what_does_not_know_it(
    old: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrations.upgrade(old)
    async with old.write() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Exception, match="9999"):
        await migrations.upgrade(old)


async def _whose(tx: ReadTx, secret: str) -> int:
    wanted = InferencePrincipal
    found = await access.authenticate(tx, secret=secret, wanted=wanted, now_ms=START_MS)
    return found.key_id


def _address(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


@contextmanager
def _failing(database: Database, *, at: int) -> Iterator[list[str]]:
    """The connection fails instead of carrying out the statement of this number."""
    seen: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)
        if len(seen) == at:
            raise ConnectionError("the machine lost power")

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", count)
