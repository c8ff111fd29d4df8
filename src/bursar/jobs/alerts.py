"""Alerts: looks for what somebody should be told of.

Owns how often. Every process looks, and the same thing is told once. Must not know the words.
"""

import asyncio

import structlog

from bursar.service.limits import alerts
from bursar.store.database import UNAVAILABLE, Database, describe

_log = structlog.get_logger("bursar.alerts")
_EVERY_S = 5.0


async def run(database: Database) -> None:
    """Look for soft limits that are reached, every few seconds, until cancelled."""
    while True:
        try:
            await alerts.tell_of_soft_limits(database)
        except UNAVAILABLE as error:
            _log.warning("alerts_failed", error=describe(error))
        await asyncio.sleep(_EVERY_S)
