"""Migrations: the schema they make, and what happens when they are killed, raced or too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from bursar.core.audit.events import AuditAction, AuditEvent
from bursar.core.errors import Conflict
from bursar.store import audit, migrations
from bursar.store.counters import NAMES
from bursar.store.database import POSTGRESQL, SQLITE, Database, ReadTx, WriteTx, sqlite_url
from bursar.store.migrations import partitions
from bursar.store.tables import metadata
from tests.databases import START_MS, Clock
from tests.postgres import PostgresServer

MONTH_MS = 31 * 86_400_000

SQLITE_SCHEMA = "SELECT name, type, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
POSTGRESQL_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid), a.attnum
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version'
"""
POSTGRESQL_CONSTRAINTS = """
    SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
     WHERE NOT c.relispartition AND c.relname <> 'alembic_version' AND k.contype <> 'n'
"""
POSTGRESQL_INDEXES = """
    SELECT tablename, indexname, indexdef FROM pg_indexes
     WHERE schemaname = 'public' AND tablename <> 'alembic_version'
       AND tablename NOT LIKE 'usage\\_events\\_%'
"""
USAGE_ROW = """
    INSERT INTO usage_events (account_id, at_ms, event_id, key_id, product, endpoint, model,
        upstream, outcome, is_stream, is_estimated, input_tokens, cached_input_tokens,
        output_tokens, reasoning_tokens, price_id, cost_nanos, duration_ms, first_byte_ms,
        worker_id, seq)
    VALUES (1, :at_ms, :event_id, 1, '', 'chat', 'm', 'u', 'ok', 0, 0, 1, 0, 1, 0, 1, 5, 1, 1, 1, 1)
"""
TRANSFER = """
    INSERT INTO transfers (account_id, id, at_ms, kind, source, target, amount_nanos)
    VALUES (1, 1, 1, 'grant', 'funding', 'wallet', 5)
"""


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "empty.db")
    url: str = request.getfixturevalue("postgres_database")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def two_empty_urls(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> Iterator[tuple[str, str]]:
    """The URLs of two databases of one kind, without any table."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "one.db"), sqlite_url(tmp_path / "two.db")
        return
    with postgres_server.database() as one, postgres_server.database() as two:
        yield one, two


@pytest.fixture
async def empty(empty_url: str, clock: Clock) -> AsyncIterator[Database]:
    """A database without any table."""
    found = Database(empty_url, clock_ms=clock)
    yield found
    await found.close()


async def test_migrated_schema_is_the_one_that_the_tables_describe(
    two_empty_urls: tuple[str, str], clock: Clock
) -> None:
    migrated, described = (Database(url, clock_ms=clock) for url in two_empty_urls)
    await migrations.upgrade(migrated)
    async with described.write() as tx:
        await tx.connection.run_sync(metadata.create_all)
    async with migrated.read() as one, described.read() as two:
        assert await _schema(one) == await _schema(two)
    await migrated.close()
    await described.close()


async def test_upgrade_reports_where_it_came_from_and_is_idempotent(empty: Database) -> None:
    assert await migrations.current(empty) is None
    assert not await migrations.is_current(empty)
    assert await migrations.upgrade(empty) is None
    assert await migrations.upgrade(empty) == migrations.head()
    assert await migrations.current(empty) == migrations.head()
    assert await migrations.is_current(empty)


async def test_every_counter_has_its_row(database: Database) -> None:
    async with database.read() as tx:
        rows = await tx.execute(text("SELECT name, value FROM counters"))
        # The plan that everybody has at first is number 1.
        assert dict(iter(rows)) == dict.fromkeys(NAMES, 0) | {"plans": 1}


async def test_servers_that_start_at_once_all_find_the_schema(empty_url: str, clock: Clock) -> None:
    databases = [Database(empty_url, clock_ms=clock) for _ in range(5)]
    try:
        found = await asyncio.gather(*(migrations.upgrade(database) for database in databases))
        assert sorted(found, key=str) == [*([migrations.head()] * 4), None]
        assert await migrations.is_current(databases[0])
    finally:
        for database in databases:
            await database.close()


async def test_upgrade_that_fails_half_way_leaves_nothing_behind(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the machine lost power")

    with monkeypatch.context() as patch:
        patch.setattr(partitions, "ensure", fail)
        with pytest.raises(ConnectionError):
            await migrations.upgrade(empty)
    async with empty.read() as tx:
        assert await _schema(tx) == {}
    await migrations.upgrade(empty)
    assert await migrations.is_current(empty)


async def test_database_of_a_newer_program_is_refused(database: Database) -> None:
    async with database.write() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="9999") as caught:
        await migrations.upgrade(database)
    assert caught.value.code == "database_newer"
    assert not await migrations.is_current(database)


@pytest.mark.parametrize("table", ["transfers", "usage_events", "audit"])
@pytest.mark.parametrize("change", ["UPDATE {} SET account_id = 2", "DELETE FROM {}"])
async def test_transfers_usage_rows_and_the_audit_log_are_never_changed_or_deleted(
    database: Database, table: str, change: str
) -> None:
    async with database.write() as tx:
        await tx.execute(text(TRANSFER))
        await _insert_usage(tx, at_ms=START_MS, event_id="e1")
        audit.record(tx, AuditEvent(account_id=1, action=AuditAction.KEY_DELETE, target="key:1"))
    with pytest.raises(DBAPIError, match="never changed or deleted"):
        async with database.write() as tx:
            await tx.execute(text(change.format(table)))


async def test_partitions_and_whole_tables_are_guarded_too(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, clock_ms=Clock())
    async with database.write() as tx:
        await _insert_usage(tx, at_ms=START_MS, event_id="e1")
    for change in (
        "DELETE FROM usage_events_2026_11",
        "TRUNCATE transfers",
        "TRUNCATE usage_events",
        "TRUNCATE audit",
    ):
        with pytest.raises(DBAPIError, match="never changed or deleted"):
            async with database.write() as tx:
                await tx.execute(text(change))
    await database.close()


async def test_usage_rows_lie_in_the_partition_of_their_month(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, clock_ms=Clock())
    moments = {"now": START_MS, "next": START_MS + MONTH_MS, "far": START_MS + 20 * MONTH_MS}
    async with database.write() as tx:
        for name, at_ms in moments.items():
            await _insert_usage(tx, at_ms=at_ms, event_id=name)
    async with database.read() as tx:
        rows = await tx.execute(text("SELECT event_id, tableoid::regclass::text FROM usage_events"))
        assert dict(iter(rows)) == {
            "now": "usage_events_2026_11",
            "next": "usage_events_2026_12",
            "far": "usage_events_default",
        }
    await database.close()


async def test_partitions_are_made_ahead_and_never_twice(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, clock_ms=Clock())
    async with database.write() as tx:
        assert await partitions.ensure(tx, now_ms=START_MS) == []
    async with database.write() as tx:
        made = await partitions.ensure(tx, now_ms=START_MS + 2 * MONTH_MS)
        assert made == ["usage_events_2027_02", "usage_events_2027_03"]
    await database.close()


async def test_month_whose_rows_came_before_its_partition_stays_in_the_default_one(
    postgres_database_url: str,
) -> None:
    database = Database(postgres_database_url, clock_ms=Clock())
    later = START_MS + 8 * MONTH_MS
    async with database.write() as tx:
        await _insert_usage(tx, at_ms=later, event_id="early")
    async with database.write() as tx:
        made = await partitions.ensure(tx, now_ms=later)
        assert made == ["usage_events_2027_08", "usage_events_2027_09"]
    async with database.read() as tx:
        count = await tx.execute(text("SELECT count(*) FROM usage_events"))
        assert count.scalar_one() == 1
    await database.close()


async def test_second_upgrade_waits_for_the_first_only_so_long(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_POLLS", 2)
    first = Database(postgres_database, clock_ms=Clock())
    second = Database(postgres_database, clock_ms=Clock())
    async with first.write() as tx:
        await tx.driver("SELECT pg_advisory_xact_lock($1)", (migrations._LOCK_ID,))
        with pytest.raises(Exception, match="still migrating"):
            await migrations.upgrade(second)
    await first.close()
    await second.close()


async def _insert_usage(tx: WriteTx, *, at_ms: int, event_id: str) -> None:
    await tx.execute(text(USAGE_ROW).bindparams(at_ms=at_ms, event_id=event_id))


async def _schema(tx: ReadTx) -> dict[str, Any]:
    return await tx.connection.run_sync(_read_schema)


def _read_schema(connection: Connection) -> dict[str, Any]:
    if connection.dialect.name == SQLITE:
        rows = connection.execute(text(SQLITE_SCHEMA))
        return {
            name: " ".join(sql.split())
            for name, kind, sql in rows
            if kind != "trigger" and name != "alembic_version"
        }
    assert connection.dialect.name == POSTGRESQL
    queries = (POSTGRESQL_COLUMNS, POSTGRESQL_CONSTRAINTS, POSTGRESQL_INDEXES)
    return {
        f"{row[0]}.{row[1]}": tuple(row[2:])
        for query in queries
        for row in connection.execute(text(query))
    }
