"""Recovery: what dead workers left behind is settled, returned, or put where somebody will look.

Owns replay of journals, the closing of silent workers, and quarantine. Must not know requests.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from bursar.store.database import REFUSED, Database, WriteTx, describe
from bursar.store.plane import epochs, leases, settlement, workers
from bursar.store.plane.charges import Charge
from bursar.store.plane.workers import WorkerRow
from bursar.telemetry import Metrics
from bursar.worker.journal import DeadJournal, JournalForeign, find_dead
from bursar.worker.watch import Watch

_BATCH = 256
_log = structlog.get_logger("bursar.recovery")


class JournalFormer(JournalForeign):
    """A journal holds charges of a worker of the database that this one was restored from."""


class Quarantine:
    """Charges that the ledger refuses, one JSON line each, for a person to decide about."""

    def __init__(self, directory: Path, worker_id: int) -> None:
        self._path = directory / f"{worker_id:08d}.quarantine"

    def __call__(self, charge: Charge, why: str) -> None:
        """Keep the charge and the reason; raises OSError when it cannot be kept."""
        line = json.dumps({"why": why, "charge": msgspec.to_builtins(charge)})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


async def replay_journals(database: Database, directory: Path, metrics: Metrics) -> int:
    """Settle what dead workers of this host had charged; how many charges that were.

    Raises JournalDamaged when a journal is not what was written, and JournalForeign when it was
    written for another database.
    """
    replayed = 0
    for journal in find_dead(directory):
        with journal:
            if await _is_of(database, journal):
                replayed += await _replay(database, journal, directory, metrics)
                await retire(database, worker_id=journal.worker_id)
            journal.delete()
    return replayed


async def close_all(database: Database) -> None:
    """Close every worker and return their leases: whoever asks knows that none of them lives."""
    async with database.read() as tx:
        live = await workers.list_live(tx)
    for worker in live:
        async with database.write() as tx:
            returned = await _close(tx, worker_id=worker.id)
        _log.warning("worker_closed", worker_id=worker.id, leases_returned=returned)


async def reap(database: Database, watch: Watch, *, but: int) -> int:
    """Close workers, `but` for one, that have been silent for too long, and return their leases.

    Returns how many those were.
    """
    asked_s = time.monotonic()
    async with database.read() as tx:
        live = [worker for worker in await workers.list_live(tx) if worker.id != but]
    silent = watch.look(live, asked_s=asked_s, heard_s=time.monotonic())
    return sum([await _close_silent(database, worker) for worker in silent])


async def _close_silent(database: Database, worker: WorkerRow) -> bool:
    async with database.write() as tx:
        if not await workers.close_silent(tx, worker=worker):
            return False
        returned = await leases.release_all(tx, worker_id=worker.id)
    _log.warning("worker_closed", worker_id=worker.id, leases_returned=returned)
    return True


async def retire(database: Database, *, worker_id: int) -> None:
    """Close a worker that has settled everything, and return its leases."""
    async with database.write() as tx:
        await _close(tx, worker_id=worker_id)


async def _close(tx: WriteTx, *, worker_id: int) -> int:
    await workers.close(tx, worker_id=worker_id)
    return await leases.release_all(tx, worker_id=worker_id)


async def _is_of(database: Database, journal: DeadJournal) -> bool:
    """Whether this database knows the journal's worker; one without charges may be any's."""
    async with database.read() as tx:
        row = await workers.find(tx, worker_id=journal.worker_id)
        former = await epochs.get_last_former(tx)
    if row is not None and row.started_ms == journal.born_ms:
        if row.id > former:
            return True
        if any(charge.seq > row.settled_seq for charge in journal.charges()):
            raise JournalFormer(f"{journal.name} holds charges that the restored backup has not")
        return False
    if any(True for _ in journal.charges()):
        raise JournalForeign(f"{journal.name} holds charges of another database")
    return False


async def _replay(
    database: Database, journal: DeadJournal, directory: Path, metrics: Metrics
) -> int:
    async with database.read() as tx:
        settled = await workers.get_settled_seq(tx, worker_id=journal.worker_id)
    late = [charge for charge in journal.charges() if charge.seq > settled]
    for batch in _runs(late):
        first = batch[0].seq
        if first > settled + 1:
            # The disk would not take these charges, and the worker died before it settled them.
            _log.error("charges_lost", worker_id=journal.worker_id, count=first - settled - 1)
            async with database.write() as tx:
                await workers.advance(
                    tx, worker_id=journal.worker_id, settled=settled, to=first - 1
                )
        settled = batch[-1].seq
        try:
            async with database.write() as tx:
                await settlement.settle(tx, worker_id=journal.worker_id, charges=batch)
        except (settlement.NotCovered, *REFUSED):
            await _replay_singly(database, journal.worker_id, batch, directory, metrics)
    if late:
        _log.warning("journal_replayed", worker_id=journal.worker_id, charges=len(late))
    return len(late)


def _runs(charges: Sequence[Charge]) -> Iterator[list[Charge]]:
    """Charges in batches whose numbers follow each other."""
    batch: list[Charge] = []
    for charge in charges:
        if batch and (charge.seq != batch[-1].seq + 1 or len(batch) == _BATCH):
            yield batch
            batch = []
        batch.append(charge)
    if batch:
        yield batch


async def _replay_singly(
    database: Database,
    worker_id: int,
    batch: Sequence[Charge],
    directory: Path,
    metrics: Metrics,
) -> None:
    quarantine = Quarantine(directory, worker_id)
    for charge in batch:
        try:
            async with database.write() as tx:
                _, overrun = await settlement.settle_one(tx, worker_id=worker_id, charge=charge)
            metrics.overrun_nanos += overrun
        except REFUSED as error:
            quarantine(charge, describe(error))
            metrics.quarantined += 1
            async with database.write() as tx:
                await settlement.skip(tx, worker_id=worker_id, charge=charge)
