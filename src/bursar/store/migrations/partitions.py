"""Monthly partitions of the usage rows on PostgreSQL; SQLite has one table and needs none.

Owns their names and bounds. A month's partition is made before the month begins, because making
one later would have to move rows, and usage rows are never touched. For the same reason retention
is by partition: a month past its time is detached (`ALTER TABLE usage_events DETACH PARTITION …
CONCURRENTLY`), archived and dropped as a table; no row is ever deleted.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from bursar.store.database import POSTGRESQL, WriteTx

_LOCK_ID = 0x6275_7273_6173
_MONTHS = 3
_EXISTS = "SELECT to_regclass($1) IS NOT NULL"
_IN_DEFAULT = "SELECT EXISTS (SELECT FROM usage_events_default WHERE at_ms >= $1 AND at_ms < $2)"


async def ensure(tx: WriteTx, *, now_ms: int) -> list[str]:
    """Make the partitions of this month and the next two; return the names of the new ones.

    A month of which rows are already in the default partition stays there: they are found all the
    same. Safe to call from several servers at once.
    """
    if tx.dialect != POSTGRESQL:
        return []
    await tx.driver("SELECT pg_advisory_xact_lock($1)", (_LOCK_ID,))
    made = []
    for name, start_ms, end_ms in _months(now_ms):
        if (await tx.driver(_EXISTS, (name,))).scalar_one():
            continue
        if (await tx.driver(_IN_DEFAULT, (start_ms, end_ms))).scalar_one():
            continue
        # Attached, not created in place: that would lock every writer of usage rows out.
        await tx.driver(f"CREATE TABLE {name} (LIKE usage_events INCLUDING ALL)")
        await tx.driver(
            f"ALTER TABLE usage_events ATTACH PARTITION {name} "
            f"FOR VALUES FROM ({start_ms}) TO ({end_ms})"
        )
        made.append(name)
    return made


def _months(now_ms: int) -> Iterator[tuple[str, int, int]]:
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    first = now.year * 12 + now.month - 1
    for number in range(first, first + _MONTHS):
        year, month = divmod(number, 12)
        yield f"usage_events_{year}_{month + 1:02d}", _begin_ms(number), _begin_ms(number + 1)


def _begin_ms(number: int) -> int:
    year, month = divmod(number, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp()) * 1000
