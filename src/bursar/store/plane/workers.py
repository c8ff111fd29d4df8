"""Worker rows: who holds leases, until which charge they have settled, that they still speak.

A worker's id is new at every start and never used again, so it is the epoch that fences: leases and
charges carry it, and a worker that has been closed can take nothing more.

A heartbeat is the database's time, so that hosts need not agree about theirs, and never the one
before, so that it can be told from it even where that clock was set back. Who has fallen silent is
for observers to say, who count by their own clocks how long a heartbeat has not changed. Must not
judge that here: no two moments of a clock that people set are a duration.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, cast, extract, func, insert, select, update

from bursar.core.errors import InvariantViolated
from bursar.store import counters
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.plane import statements
from bursar.store.tables import workers

LIVE, CLOSED = "live", "closed"
_DATABASE_NOW_MS: Final = cast(extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
_NEXT_BEAT: Final = func.greatest(workers.c.heartbeat_ms + 1, _DATABASE_NOW_MS)


class Fenced(Exception):
    """This worker has been declared dead; its leases belong to others now."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker as the database knows it."""

    id: int
    state: str
    host: str
    started_ms: int
    settled_seq: int
    heartbeat_ms: int


async def insert_worker(tx: WriteTx, *, host: str) -> int:
    """Register a live worker and return its id."""
    worker_id = await counters.advance(tx, name="workers")
    now_ms: Any = _DATABASE_NOW_MS if tx.dialect == POSTGRESQL else tx.now_ms
    await tx.execute(
        insert(workers).values(
            id=worker_id, state=LIVE, host=host, started_ms=tx.now_ms, heartbeat_ms=now_ms
        )
    )
    return worker_id


async def insert_former(tx: WriteTx, *, worker_id: int, host: str) -> None:
    """Register a worker that the database has forgotten: closed, and with nothing settled."""
    await counters.raise_to(tx, name="workers", least=worker_id)
    await tx.execute(
        insert(workers).values(
            id=worker_id, state=CLOSED, host=host, started_ms=tx.now_ms, heartbeat_ms=tx.now_ms
        )
    )


async def renew(tx: WriteTx, *, worker_id: int) -> None:
    """Say that the worker lives; raises Fenced when it has been closed."""
    statement = (
        update(workers)
        .where(workers.c.id == worker_id, workers.c.state == LIVE)
        .values(heartbeat_ms=_next_beat(tx))
    )
    if (await tx.execute(statement)).rowcount != 1:
        raise Fenced(f"worker {worker_id} is closed")


async def find(tx: ReadTx, *, worker_id: int) -> WorkerRow | None:
    """The worker, or None."""
    rows = await _select(tx, workers.c.id == worker_id)
    return rows[0] if rows else None


async def list_live(tx: ReadTx) -> list[WorkerRow]:
    """Every worker that has not been closed."""
    return await _select(tx, workers.c.state == LIVE)


async def count_speaking(tx: WriteTx, *, within_s: float) -> int:
    """How many workers have been heard lately, as the clock that heartbeats are in has it."""
    now_ms: Any = _DATABASE_NOW_MS if tx.dialect == POSTGRESQL else tx.now_ms
    lately = workers.c.heartbeat_ms >= now_ms - int(within_s * 1000)
    query = select(func.count()).select_from(workers).where(workers.c.state == LIVE, lately)
    return int((await tx.execute(query)).scalar_one())


async def close(tx: WriteTx, *, worker_id: int) -> None:
    """Fence the worker: it takes no more leases. Its settled sequence stays, for its journal."""
    await tx.execute(update(workers).where(workers.c.id == worker_id).values(state=CLOSED))


async def close_silent(tx: WriteTx, *, worker: WorkerRow) -> bool:
    """Fence the worker if it is as silent as when `worker` was read; False when it has spoken."""
    statement = (
        update(workers)
        .where(
            workers.c.id == worker.id,
            workers.c.state == LIVE,
            workers.c.heartbeat_ms == worker.heartbeat_ms,
        )
        .values(state=CLOSED)
    )
    return (await tx.execute(statement)).rowcount == 1


async def advance(tx: WriteTx, *, worker_id: int, settled: int, to: int) -> bool:
    """Move the settled sequence from `settled` to `to`; False when it stood elsewhere.

    This guarded statement is what makes a batch apply exactly once: it commits with the batch, so a
    batch whose COMMIT had an unknown outcome can be sent again.
    """
    if tx.dialect == POSTGRESQL:
        done = await tx.driver(statements.ADVANCE_WORKER[0], (worker_id, settled, to))
    else:
        done = await tx.driver(statements.ADVANCE_WORKER[1], (worker_id, settled, to, tx.now_ms))
    return done.rowcount == 1


async def get_settled_seq(tx: ReadTx, *, worker_id: int) -> int:
    """How far the worker's charges are settled."""
    row = await find(tx, worker_id=worker_id)
    if row is None:
        raise InvariantViolated("unknown_worker", f"worker {worker_id} is not in the database")
    return row.settled_seq


def _next_beat(tx: WriteTx) -> ColumnElement[int]:
    if tx.dialect == POSTGRESQL:
        return _NEXT_BEAT
    return func.max(workers.c.heartbeat_ms + 1, tx.now_ms)


async def _select(tx: ReadTx, condition: ColumnElement[bool]) -> list[WorkerRow]:
    query = select(
        workers.c.id,
        workers.c.state,
        workers.c.host,
        workers.c.started_ms,
        workers.c.settled_seq,
        workers.c.heartbeat_ms,
    ).where(condition)
    rows = await tx.execute(query.order_by(workers.c.id))
    return [
        WorkerRow(row.id, row.state, row.host, row.started_ms, row.settled_seq, row.heartbeat_ms)
        for row in rows
    ]
