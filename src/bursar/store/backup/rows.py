"""The rows of a backup: out of one snapshot, into an empty schema.

Owns their order, their batches and the types that JSON does not have. A backup has every table as
it was, leases and workers too; what a restored database makes of those is `plane.epochs`. Must not
know files, or whether a target may be filled.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, LargeBinary, MetaData, Table, delete, insert, select
from sqlalchemy.exc import DataError, IntegrityError

from bursar.core.errors import Unreadable
from bursar.store.database import ReadTx, WriteTx
from bursar.store.migrations import partitions
from bursar.store.tables import metadata

_AT_ONCE: Final = 500
_LATEST_YEAR: Final = 9_000
_USAGE: Final = "usage_events"
_MOST_MS: Final = int(datetime(_LATEST_YEAR, 1, 1, tzinfo=UTC).timestamp()) * 1000

# Told the table and how many of its rows are done.
Report = Callable[[str, int], None]


def columns() -> dict[str, list[str]]:
    """The columns of every table that is backed up: of all of them, sorted by name."""
    return {
        str(name): [str(column.name) for column in table.columns]
        for name, table in sorted(metadata.tables.items())
    }


async def read(tx: ReadTx, *, table: str) -> AsyncIterator[list[Any]]:
    """Yield the rows of one table in the order of its key, without holding them all."""
    found = metadata.tables[table]
    query = select(found).order_by(*found.primary_key.columns)
    options = {"yield_per": _AT_ONCE}
    async with tx.connection.stream(query, execution_options=options) as rows:
        async for row in rows:
            yield list(row)


async def fill(
    tx: WriteTx,
    rows: Iterable[tuple[str, list[Any]]],
    *,
    tables: dict[str, list[str]],
    report: Report,
) -> dict[str, int]:
    """Insert rows into an empty schema that has these tables and columns; how many of each.

    Raises Unreadable (`backup_damaged`) for a table or a column that the schema does not have.
    """
    targets = {
        name: await tx.connection.run_sync(_reflect, name, names) for name, names in tables.items()
    }
    for table in targets.values():
        # Counters begin with rows of their own; all other tables are empty.
        await tx.execute(delete(table))
    counts = dict.fromkeys(tables, 0)
    months: set[tuple[int, int]] = set()
    batch: list[dict[str, Any]] = []
    current = ""
    for name, row in rows:
        if batch and (name != current or len(batch) == _AT_ONCE):
            await _insert(tx, targets[current], batch, months)
            report(current, counts[current])
            batch = []
        current = name
        counts[name] += 1
        batch.append(_decoded(targets[name], tables[name], row))
    if batch:
        await _insert(tx, targets[current], batch, months)
    return counts


def _reflect(connection: Connection, name: str, names: list[str]) -> Table:
    """The table as it is in the database: of the backup's revision, which may be an old one."""
    table = Table(name, MetaData(), autoload_with=connection) if name in metadata.tables else None
    if table is None or set(names) - set(table.columns.keys()):
        raise Unreadable("backup_damaged", f"This backup cannot be used: {name} is unknown here.")
    return table


def _decoded(table: Table, names: list[str], row: list[Any]) -> dict[str, Any]:
    values = dict(zip(names, row, strict=True))
    for column in table.columns:
        value = values.get(column.name)
        if isinstance(column.type, LargeBinary) and value is not None:
            try:
                values[column.name] = base64.b64decode(value, validate=True)
            except (binascii.Error, TypeError) as error:
                message = f"This backup cannot be used: a {column.name} is not what was written."
                raise Unreadable("backup_damaged", message) from error
    return values


async def _insert(
    tx: WriteTx, table: Table, batch: list[dict[str, Any]], months: set[tuple[int, int]]
) -> None:
    if table.name == _USAGE:
        await _make_room(tx, batch, months)
    try:
        await tx.connection.execute(insert(table), batch)
    except (IntegrityError, DataError, OverflowError) as error:
        message = f"This backup cannot be used: the database refuses its {table.name}."
        raise Unreadable("backup_damaged", message) from error


async def _make_room(
    tx: WriteTx, batch: list[dict[str, Any]], months: set[tuple[int, int]]
) -> None:
    """See that the months of these usage rows have their partitions, where there are any."""
    for row in batch:
        at_ms = min(max(0, row["at_ms"]), _MOST_MS)
        moment = datetime.fromtimestamp(at_ms // 1000, UTC)
        month = (moment.year, moment.month)
        if month not in months:
            months.add(month)
            await partitions.ensure(tx, now_ms=at_ms)
