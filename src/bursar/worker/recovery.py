"""Recovery: what dead workers left behind is settled, returned, or put where somebody will look.

Owns replay of journals, the closing of silent workers, and quarantine. Must not know requests.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import structlog

from bursar import failpoints
from bursar.store import usage
from bursar.store.database import REFUSED, Database, ReadTx, WriteTx, describe
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
    with ExitStack() as held:
        ours: list[DeadJournal] = []
        for journal in find_dead(directory):
            held.enter_context(journal)
            if await _is_of(database, journal):
                replayed += await _replay(database, journal, directory, metrics)
                ours.append(journal)
            else:
                journal.delete()
        # Only now: a fenced worker's stream may have ended under its next name.
        for journal in ours:
            replayed += await _charge_running(database, journal, directory, metrics)
            await retire(database, worker_id=journal.worker_id)
            if journal.gaps:
                journal.set_aside()
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
        unsettled = (charge.seq > row.settled_seq for charge in journal.charges())
        if any(unsettled) or any(True for _ in journal.checkpoints()):
            raise JournalFormer(f"{journal.name} holds charges that the restored backup has not")
        return False
    if any(True for _ in (*journal.charges(), *journal.checkpoints())):
        raise JournalForeign(f"{journal.name} holds charges of another database")
    return False


async def _replay(
    database: Database, journal: DeadJournal, directory: Path, metrics: Metrics
) -> int:
    """Settle what is in the journal and not in the ledger; how many charges that was."""
    async with database.read() as tx:
        settled = await workers.get_settled_seq(tx, worker_id=journal.worker_id)
    late = [charge for charge in journal.charges() if charge.seq > settled]
    if journal.gaps:
        _log.error("journal_has_gaps", worker_id=journal.worker_id, gaps=journal.gaps)
    await _settle(database, journal.worker_id, settled, late, directory, metrics)
    if late:
        _log.warning("journal_replayed", worker_id=journal.worker_id, charges=len(late))
    return len(late)


async def _charge_running(
    database: Database, journal: DeadJournal, directory: Path, metrics: Metrics
) -> int:
    """Charge streams that were running for what was noted of them; how many those were.

    One that had ended has its charge in the ledger by now, under the same event.
    """
    async with database.read() as tx:
        settled = await workers.get_settled_seq(tx, worker_id=journal.worker_id)
        cut = [note for note in journal.checkpoints() if not await _is_charged(tx, note)]
    for number, note in enumerate(cut, settled + 1):
        note.seq = number
    await _settle(database, journal.worker_id, settled, cut, directory, metrics)
    if cut:
        _log.warning("streams_cut", worker_id=journal.worker_id, charges=len(cut))
    return len(cut)


async def _is_charged(tx: ReadTx, note: Charge) -> bool:
    return await usage.is_settled(
        tx, account_id=note.account_id, at_ms=note.at_ms, event_id=note.event_id
    )


async def _settle(
    database: Database,
    worker_id: int,
    settled: int,
    late: Sequence[Charge],
    directory: Path,
    metrics: Metrics,
) -> None:
    for batch in _runs(late):
        first = batch[0].seq
        if first > settled + 1:
            # No disk has these charges: it was full, or it had not been reached at a power cut.
            _log.error("charges_lost", worker_id=worker_id, count=first - settled - 1)
            async with database.write() as tx:
                await workers.advance(tx, worker_id=worker_id, settled=settled, to=first - 1)
        settled = batch[-1].seq
        try:
            async with database.write() as tx:
                await _apply(tx, worker_id, batch)
        except (settlement.NotCovered, *REFUSED):
            await _settle_singly(database, worker_id, batch, directory, metrics)


@failpoints.after("replay.applied")
async def _apply(tx: WriteTx, worker_id: int, batch: Sequence[Charge]) -> None:
    await settlement.settle(tx, worker_id=worker_id, charges=batch)


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


async def _settle_singly(
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
