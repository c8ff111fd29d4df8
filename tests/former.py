"""A database as a former version of Bursar left it, with everything that happened in it.

Made from one of today by taking over what the former schema had room for, so that its rows are
those that the program really writes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, MetaData, Table, insert, select

from bursar.store import migrations
from bursar.store.database import Database, ReadTx, WriteTx
from bursar.worker.plane import wall_clock_ms

FIRST = "0001"
Rows = dict[str, list[dict[str, Any]]]


async def make(source_url: str, target_url: str, *, revision: str = FIRST) -> Rows:
    """Make the target a database of this revision with what the source has; its rows by table."""
    source = Database(source_url, clock_ms=wall_clock_ms)
    target = Database(target_url, clock_ms=wall_clock_ms)
    try:
        async with target.write() as tx:
            await migrations.rebuild(tx, revision=revision)
            tables = await find_tables(tx)
        async with source.read() as old, target.write() as new:
            for table in tables.values():
                await _copy(old, new, table)
        async with target.read() as tx:
            return await read(tx, tables)
    finally:
        await source.close()
        await target.close()


async def find_tables(tx: ReadTx) -> dict[str, Table]:
    """The tables as the database has them, whatever this program thinks; partitions left out."""

    def reflect(connection: Connection) -> dict[str, Table]:
        found = MetaData()
        found.reflect(connection)
        own = {name for name in found.tables if name != "alembic_version"}
        return {n: found.tables[n] for n in sorted(own) if not n.startswith("usage_events_")}

    return await tx.connection.run_sync(reflect)


async def read(tx: ReadTx, tables: dict[str, Table]) -> Rows:
    """Every row of these tables, with these columns."""
    rows: Rows = {}
    for name, table in tables.items():
        query = select(table).order_by(*table.primary_key.columns)
        rows[name] = [dict(row._mapping) for row in await tx.connection.execute(query)]
    return rows


async def _copy(old: ReadTx, new: WriteTx, table: Table) -> None:
    there = (await find_tables(old))[table.name]
    query = select(*(there.columns[column.name] for column in table.columns))
    rows = [dict(row._mapping) for row in await old.connection.execute(query)]
    if table.name == "counters":
        # The former version's own rows are there, each at nothing.
        there_now = set((await new.connection.execute(select(table.columns["name"]))).scalars())
        rows = [row for row in rows if row["name"] in there_now]
        await new.connection.execute(table.delete())
    if rows:
        await new.connection.execute(insert(table), rows)
