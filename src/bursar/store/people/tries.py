"""Tries: how often somebody tried to sign in lately, counted for all workers together.

Owns the `sign_in_tries` table. One statement counts and compares, so that of many tries at once
exactly as many get through as may. Must not know who tries: a bucket is a hash.
"""

from typing import Any, Final

from sqlalchemy import case, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import sign_in_tries

_C: Final = sign_in_tries.c


async def take(tx: WriteTx, *, bucket: bytes, most: int, window_ms: int) -> bool:
    """Count one more try; False, and nothing counted, when there were `most` in the window."""
    insertion: Any = postgresql.insert if tx.dialect == POSTGRESQL else sqlite.insert
    is_over = tx.now_ms - window_ms >= _C.start_ms
    # A window from the future was begun before the clock was set back.
    is_new = or_(is_over, _C.start_ms > tx.now_ms)
    statement = (
        insertion(sign_in_tries)
        .values(bucket=bucket, start_ms=tx.now_ms, count=1)
        .on_conflict_do_update(
            index_elements=["bucket"],
            set_={
                "count": case((is_new, 1), else_=_C.count + 1),
                "start_ms": case((is_new, tx.now_ms), else_=_C.start_ms),
            },
            where=or_(is_new, _C.count < most),
        )
        .returning(_C.count)
    )
    return (await tx.execute(statement)).first() is not None


async def find_start(tx: ReadTx, *, bucket: bytes) -> int | None:
    """Return when the bucket's window began, in ms, or None."""
    query = select(_C.start_ms).where(_C.bucket == bucket)
    return (await tx.execute(query)).scalar_one_or_none()


async def give_back(tx: WriteTx, *, bucket: bytes) -> None:
    """Count one try less: it was a good one."""
    statement = update(sign_in_tries).where(_C.bucket == bucket, _C.count > 0)
    await tx.execute(statement.values(count=_C.count - 1))


async def forget(tx: WriteTx, *, bucket: bytes) -> None:
    """Begin anew with a bucket."""
    await tx.execute(delete(sign_in_tries).where(_C.bucket == bucket))


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget windows that began before `at_ms`; how many they were."""
    return (await tx.execute(delete(sign_in_tries).where(_C.start_ms < at_ms))).rowcount
