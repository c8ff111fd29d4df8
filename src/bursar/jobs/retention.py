"""Retention: forgets what is no longer needed and prepares what soon will be.

Owns how long feed lines, idempotency records and refusals live, and when partitions are made. Must
not touch transfers or usage: history is never deleted here.
"""

import asyncio

import structlog

from bursar.service.people import tokens
from bursar.store import changes, idempotency
from bursar.store.database import UNAVAILABLE, Database, describe
from bursar.store.limits import refusals
from bursar.store.migrations import partitions
from bursar.store.people import challenges, letters, sessions, signing_keys, tries
from bursar.store.plane import leases

_log = structlog.get_logger("bursar.retention")
_EVERY_S = 3_600.0
_DAY_MS = 86_400_000
# From where somebody has signed in counts for so long.
_SESSION_DAYS = 90


async def run(database: Database, *, limit_log_days: int) -> None:
    """Tidy up at once and then every hour, until cancelled."""
    while True:
        try:
            await tidy(database, limit_log_days=limit_log_days)
        except UNAVAILABLE as error:
            _log.warning("retention_failed", error=describe(error))
        await asyncio.sleep(_EVERY_S)


async def tidy(database: Database, *, limit_log_days: int) -> None:
    """Make the next months' partitions; forget yesterday's feed lines and idempotency records.

    And leases of windows that have ended, refusals by limits that are older than `limit_log_days`,
    and what people needed to sign in with and cannot use any more.
    """
    async with database.write() as tx:
        await partitions.ensure(tx, now_ms=tx.now_ms)
    async with database.write() as tx:
        await idempotency.delete_before(tx, at_ms=tx.now_ms - _DAY_MS)
        await changes.delete_before(tx, at_ms=tx.now_ms - _DAY_MS)
    async with database.write() as tx:
        before_ms = tx.now_ms - _DAY_MS
        await tries.delete_before(tx, at_ms=before_ms)
        await letters.delete_before(tx, at_ms=before_ms)
        await challenges.delete_before(tx, at_ms=tx.now_ms)
        await sessions.delete_before(tx, at_ms=tx.now_ms - _SESSION_DAYS * _DAY_MS)
        await signing_keys.delete_before(tx, at_ms=tx.now_ms - tokens.FORGOTTEN_MS)
    while True:
        async with database.write() as tx:
            if not await leases.delete_ended(tx):
                break
    # In many transactions: each holds SQLite's one write lock only for a moment.
    while True:
        async with database.write() as tx:
            before_ms = tx.now_ms - limit_log_days * _DAY_MS
            if not await refusals.delete_before(tx, at_ms=before_ms):
                return
