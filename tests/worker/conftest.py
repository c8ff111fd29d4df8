"""A worker over a real database with one account, and no HTTP around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bursar.store.database import Database
from bursar.telemetry import Metrics
from bursar.worker.plane import Limits, Worker
from tests.databases import Clock
from tests.factories import open_account

WALLET_NANOS = 1_000_000


def limits(directory: Path) -> Limits:
    return Limits(
        journal_dir=directory / "journal",
        journal_max_bytes=1 << 26,
        settle_batch=64,
        settle_linger_s=0.001,
        settle_backlog_most=10_000,
        max_staleness_s=5,
        lease_ttl_s=30,
        lease_idle_s=60,
        keyring_most=1_000,
    )


@pytest.fixture
async def worker(database: Database, clock: Clock, tmp_path: Path) -> AsyncIterator[Worker]:
    async with database.write() as tx:
        await open_account(tx, wallet_nanos=WALLET_NANOS, key_limit_nanos=WALLET_NANOS // 2)
    made = Worker(database, limits(tmp_path), Metrics(), clock_ms=clock)
    await made.start()
    yield made
    await made.stop()
