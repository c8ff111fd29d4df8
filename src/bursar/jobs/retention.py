"""Retention: forgets what is no longer needed and prepares what soon will be.

Owns how long feed lines and idempotency records live, and when partitions are made. Must not touch
transfers or usage: history is never deleted here.
"""

import asyncio

import structlog

from bursar.store import changes, idempotency
from bursar.store.database import UNAVAILABLE, Database, describe
from bursar.store.migrations import partitions

_log = structlog.get_logger("bursar.retention")
_EVERY_S = 3_600.0
_DAY_MS = 86_400_000


async def run(database: Database) -> None:
    """Tidy up at once and then every hour, until cancelled."""
    while True:
        try:
            await tidy(database)
        except UNAVAILABLE as error:
            _log.warning("retention_failed", error=describe(error))
        await asyncio.sleep(_EVERY_S)


async def tidy(database: Database) -> None:
    """Make the next months' partitions; forget feed lines and idempotency records of yesterday."""
    async with database.write() as tx:
        await partitions.ensure(tx, now_ms=tx.now_ms)
    async with database.write() as tx:
        await idempotency.delete_before(tx, at_ms=tx.now_ms - _DAY_MS)
        await changes.delete_before(tx, at_ms=tx.now_ms - _DAY_MS)
