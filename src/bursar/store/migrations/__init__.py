"""Bringing a database to the schema that this program speaks.

Owns when and how migrations run: one transaction, one runner at a time, all or nothing, on both
databases. Must not know what a migration changes (that is `versions`). Needs no configuration
file: the scripts lie beside this module, in a checkout and in an installed wheel alike.
"""

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import OperationalError

from bursar.core.errors import Conflict, Unavailable
from bursar.store.database import POSTGRESQL, Database, ReadTx, WriteTx
from bursar.store.migrations import partitions, walls
from bursar.store.tables import metadata

_LOCK_ID = 0x6275_7273_6172  # "bursar"
_LOCK_POLL_S = 0.1
_LOCK_POLLS = 600
_CONNECT_ATTEMPTS = 200
# A table in use makes the migration give up instead of making every request queue behind it.
_TABLE_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"


async def upgrade(database: Database) -> str | None:
    """Bring the schema to this program's revision and return the one it had before.

    Everything happens in one transaction: a killed upgrade leaves nothing behind, and of several
    servers that start at once one migrates and the others wait. Raises Conflict
    (`database_newer`) for a database that a newer program has migrated, and Unavailable
    (`migration_locked`) when another migration takes longer than a minute.
    """
    await _connect(database)
    async with database.write() as tx:
        if tx.dialect == POSTGRESQL:
            await _lock(tx)
        before = await tx.connection.run_sync(_upgrade)
        await partitions.ensure(tx, now_ms=tx.now_ms)
        await walls.ensure(tx)
    return before


async def rebuild(tx: WriteTx, *, revision: str) -> None:
    """Drop whatever is in the database and make an empty schema of this revision instead.

    Raises Conflict (`backup_newer`) for a revision, and (`database_newer`) for a database, that a
    newer program has made.
    """
    if tx.dialect == POSTGRESQL:
        await _lock(tx)
    if not await tx.connection.run_sync(_knows, revision):
        raise Conflict(
            "backup_newer",
            f"The backup has revision {revision}, which this version of Bursar does not know.",
        )
    await tx.connection.run_sync(_require_known)
    await walls.remove(tx)
    await tx.connection.run_sync(metadata.drop_all)
    await tx.driver("DROP TABLE IF EXISTS alembic_version")
    if tx.dialect == POSTGRESQL:
        await tx.driver("DROP FUNCTION IF EXISTS bursar_refuse_change()")
    await tx.connection.run_sync(_upgrade, revision)
    await partitions.ensure(tx, now_ms=tx.now_ms)


async def advance(tx: WriteTx) -> None:
    """Bring the schema to this program's revision within a transaction."""
    await tx.connection.run_sync(_upgrade)
    await walls.ensure(tx)


async def find_revision(tx: ReadTx) -> str | None:
    """The revision of the database that a transaction is in; None when it has none."""
    return await tx.connection.run_sync(_current)


async def current(database: Database) -> str | None:
    """The database's revision; None when no migration has ever run."""
    async with database.read() as tx:
        return await find_revision(tx)


async def is_current(database: Database) -> bool:
    """Whether the database has exactly this program's schema."""
    return await current(database) == head()


def head() -> str:
    """The revision that this program speaks."""
    revision = _scripts().get_current_head()
    if revision is None:
        raise Unavailable("migrations_missing", "The migrations are missing; install Bursar again.")
    return str(revision)


async def _connect(database: Database) -> None:
    # Two programs that turn the same new SQLite file to WAL can each have what the other needs;
    # SQLite then fails one of them at once instead of waiting for its busy time-out.
    for attempt in range(_CONNECT_ATTEMPTS):
        try:
            async with database.read():
                return
        except OperationalError as error:
            if "locked" not in str(error) or attempt == _CONNECT_ATTEMPTS - 1:
                raise
        await asyncio.sleep(_LOCK_POLL_S / 10)


async def _lock(tx: WriteTx) -> None:
    # Polled, not waited for: a blocked statement would run into the driver's own time-out.
    for _ in range(_LOCK_POLLS):
        taken = await tx.driver("SELECT pg_try_advisory_xact_lock($1)", (_LOCK_ID,))
        if taken.scalar_one():
            await tx.driver(_TABLE_LOCK_TIMEOUT)
            return
        await asyncio.sleep(_LOCK_POLL_S)
    raise Unavailable(
        "migration_locked", "Another server is still migrating this database; try again later."
    )


def _upgrade(connection: Connection, revision: str = "head") -> str | None:
    from alembic import command

    before = _require_known(connection)
    if before != (head() if revision == "head" else revision):
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return before


def _require_known(connection: Connection) -> str | None:
    """The database's revision. Raises Conflict where only a newer program knows it."""
    found = _current(connection)
    if found is not None and not _knows(connection, found):
        raise Conflict(
            "database_newer",
            f"The database has revision {found}, which this version of Bursar does not know; "
            "install the version that migrated it, or a newer one.",
        )
    return found


def _knows(_connection: Connection, revision: str) -> bool:
    return revision in {script.revision for script in _scripts().walk_revisions()}


def _current(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    if not inspect(connection).has_table("alembic_version"):
        return None
    return MigrationContext.configure(connection).get_current_revision()


def _scripts() -> Any:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())


def _config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
