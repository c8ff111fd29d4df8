"""Idempotency records: which request was carried out, and the sealed answer to it.

Owns the `idempotency` table. Must not know what is sealed, nor how. A record is written in the
transaction of the effect that it protects: both are there or neither is.
"""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import idempotency


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A request that was carried out: the hash of what it said, and its answer."""

    request_hash: bytes
    status: int
    sealed_body: bytes
    created_ms: int


async def take_lock(tx: WriteTx, *, scope_hash: bytes) -> bool:
    """Keep others from carrying out the same request until commit; False: one is at it.

    On SQLite there is one server process, whose caller keeps its own list, and one writer at a
    time: there is nothing more to lock.
    """
    if tx.dialect != POSTGRESQL:
        return True
    number = int.from_bytes(scope_hash[:8], "big", signed=True)
    result = await tx.driver("SELECT pg_try_advisory_xact_lock($1)", (number,))
    return bool(result.scalar_one())


async def find_record(tx: ReadTx, *, account_id: int, scope_hash: bytes) -> RecordRow | None:
    """Return the record of a request, or None."""
    query = select(
        idempotency.c.request_hash,
        idempotency.c.status,
        idempotency.c.sealed_body,
        idempotency.c.created_ms,
    ).where(idempotency.c.account_id == account_id, idempotency.c.scope_hash == scope_hash)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else RecordRow(**row._mapping)


async def replace_record(
    tx: WriteTx, *, account_id: int, scope_hash: bytes, record: RecordRow
) -> None:
    """Store a record in place of an expired one with the same scope, if there is any."""
    await tx.execute(
        delete(idempotency).where(
            idempotency.c.account_id == account_id, idempotency.c.scope_hash == scope_hash
        )
    )
    await tx.execute(
        insert(idempotency).values(
            account_id=account_id,
            scope_hash=scope_hash,
            request_hash=record.request_hash,
            status=record.status,
            sealed_body=record.sealed_body,
            created_ms=record.created_ms,
        )
    )


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget records older than `at_ms`; how many there were."""
    return (await tx.execute(delete(idempotency).where(idempotency.c.created_ms < at_ms))).rowcount
