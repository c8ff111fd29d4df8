"""Periodic work: what no request can wait for and nobody should have to remember."""

from collections.abc import Coroutine

from bursar.jobs import alerts, retention
from bursar.store.database import Database


def start(database: Database, *, limit_log_days: int) -> list[Coroutine[None, None, None]]:
    """Every job of a server process, each to be run until it is cancelled."""
    return [
        retention.run(database, limit_log_days=limit_log_days),
        alerts.run(database),
    ]
