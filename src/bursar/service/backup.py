"""Backup and restore: one snapshot into a file, a file into an empty database.

Owns when a restore may begin, what it makes of the copy, and that either happens whole. The file
is the same for both databases, so that a backup of one can be restored into the other. Must not
know who asks, or how progress is shown.
"""

from pathlib import Path
from typing import Final, NamedTuple

from bursar.core.errors import Conflict
from bursar.store import migrations
from bursar.store.backup import archives, rows
from bursar.store.backup.archives import Header, Written
from bursar.store.backup.rows import Report
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.plane import epochs, workers
from bursar.store.plane.epochs import Voided
from bursar.store.tenants import accounts

_EVERY: Final = 10_000


class Restored(NamedTuple):
    """What was restored: the backup's own words, rows by table, and what does not hold any more."""

    header: Header
    rows: dict[str, int]
    voided: Voided


async def back_up(tx: ReadTx, *, path: Path, taken_ms: int, report: Report) -> Written:
    """Write every row of the snapshot to a new file at `path`, whole or not at all.

    Runs beside servers and stops none of them. Raises Conflict (`backup_exists`).
    """
    tables = rows.columns()
    header = archives.describe(
        schema=migrations.head(), taken_ms=taken_ms, database=tx.dialect, tables=tables
    )
    with archives.writing(path, header) as writer:
        for table in tables:
            writer.begin(table)
            count = 0
            async for row in rows.read(tx, table=table):
                writer.add(row)
                count += 1
                if count % _EVERY == 0:
                    report(table, count)
        return writer.finish()


async def restore(
    tx: WriteTx,
    *,
    path: Path,
    replaces: bool,
    takes_over: bool,
    alive_s: float,
    report: Report,
) -> Restored:
    """Make the database what it was when the backup was made, as an installation of its own.

    Leases are given back and workers closed; with `takes_over`, journals of the original's workers
    are settled here when a server finds them, else refused. Whoever calls sees to it that no server
    runs on an SQLite file; on PostgreSQL workers heard within `alive_s` stand in the way.

    Raises NotFound (`backup_missing`), Unreadable (`backup_damaged`), and Conflict: `backup_newer`,
    `database_newer`, `not_empty` unless it `replaces` what is there, `servers_running`.
    """
    with archives.reading(path) as reader:
        header = reader.header
        await _require_free(tx, replaces=replaces, alive_s=alive_s)
        await migrations.rebuild(tx, revision=header.schema)
        counts = await rows.fill(tx, reader.rows(), tables=header.tables, report=report)
        await migrations.advance(tx)
        return Restored(header, counts, await epochs.begin(tx, takes_over=takes_over))


async def _require_free(tx: WriteTx, *, replaces: bool, alive_s: float) -> None:
    if await migrations.find_revision(tx) is None:
        return
    if not replaces and await accounts.list_accounts(tx, after_id=0, limit=1):
        raise Conflict("not_empty", "There is an installation in this database already.")
    if tx.dialect == POSTGRESQL and await workers.count_speaking(tx, within_s=alive_s):
        raise Conflict("servers_running", "Servers work on this database, or did a moment ago.")
