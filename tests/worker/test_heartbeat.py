"""A worker that others may take for dead admits nobody, however fresh its news are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bursar.core.refusals import Reason
from bursar.store.database import Database
from bursar.telemetry import Metrics
from bursar.worker.plane import Worker
from tests.databases import Clock
from tests.factories import open_account
from tests.serving import until
from tests.worker.conftest import WALLET_NANOS, limits

TTL_S = 1.0


async def test_a_worker_whose_heartbeat_fails_for_as_long_as_others_wait_is_closed_until_it_beats(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    async with database.write() as tx:
        await open_account(tx, wallet_nanos=WALLET_NANOS)
    ttl = replace(limits(tmp_path), lease_ttl_s=TTL_S)
    worker = Worker(database, ttl, Metrics(), clock_ms=clock)
    await worker.start()
    assert worker.closed() is None
    # The last of its loops: the news go on.
    worker._tasks[-1].cancel()
    await until(lambda: worker.closed() is not None, within_s=3 * TTL_S)
    assert worker.why_not_ready() == Reason.STALE.code
    await worker._keep_alive()
    await until(lambda: worker.closed() is None)
    await worker.stop()
