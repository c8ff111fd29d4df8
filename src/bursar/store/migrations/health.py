"""How the database is set up: what `doctor` asks before it trusts money to it.

Owns the questions. Must not know which answers are good.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from bursar.store.database import POSTGRESQL, Database


@dataclass(frozen=True, slots=True)
class Health:
    """The server's version, whether a commit reaches the disk, and the database's clock.

    `version` is 150004 for PostgreSQL 15.4, and 3045001 for SQLite 3.45.1.
    """

    version: int
    is_durable: bool
    now_ms: int | None


async def examine(database: Database) -> Health:
    """Ask; raises what the driver raises when the database cannot be reached."""
    async with database.read() as tx:
        if tx.dialect == POSTGRESQL:
            rows: Any = await tx.execute(
                text(
                    "SELECT current_setting('server_version_num')::int,"
                    " current_setting('fsync') = 'on'"
                    " AND current_setting('synchronous_commit') <> 'off',"
                    " (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
                )
            )
            version, is_durable, now_ms = rows.one()
            return Health(version, is_durable, now_ms)
        synchronous = (await tx.execute(text("PRAGMA synchronous"))).scalar_one()
        version = (await tx.execute(text("SELECT sqlite_version()"))).scalar_one()
        major, minor, patch = (int(part) for part in version.split("."))
        return Health(major * 1_000_000 + minor * 1_000 + patch, synchronous >= 2, None)
