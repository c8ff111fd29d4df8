"""The change feed: how the control plane tells every worker what it did.

Owns the order of changes. Ids come from a counter row that stays locked until commit, so a reader
that has seen change N has seen every change before it: with a sequence, a slow transaction could
commit an older number after the reader had passed it, and that change would be lost for good.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy import insert as insert_rows

from bursar.store import counters
from bursar.store.database import POSTGRESQL, Change, Database, ReadTx, WriteTx
from bursar.store.tables import changes

CHANNEL = "bursar_changes"
MOST_AT_ONCE = 1_000
ACCOUNT, KEY, ALLOWANCE, PRICES = "account", "key", "allowance", "prices"


async def insert(tx: WriteTx) -> Sequence[Change]:
    """Write what the transaction announced; the last statement before its commit."""
    wanted = list(dict.fromkeys(tx.announced))
    last = await counters.advance(tx, name="changes", by=len(wanted))
    first = last - len(wanted) + 1
    rows = [
        Change(first + n, topic, account_id, subject)
        for n, (topic, account_id, subject) in enumerate(wanted)
    ]
    values = [{**row._asdict(), "at_ms": tx.now_ms} for row in rows]
    await tx.execute(insert_rows(changes).values(values))
    if tx.dialect == POSTGRESQL:
        await tx.driver("SELECT pg_notify($1, $2)", (CHANNEL, str(last)))
    return rows


async def list_after(tx: ReadTx, *, cursor: int, limit: int = MOST_AT_ONCE) -> list[Change]:
    """Changes after `cursor`, oldest first."""
    columns = (changes.c.id, changes.c.topic, changes.c.account_id, changes.c.subject)
    query = select(*columns).where(changes.c.id > cursor).order_by(changes.c.id).limit(limit)
    rows = await tx.execute(query)
    return [Change(row.id, row.topic, row.account_id, row.subject) for row in rows]


async def get_last(tx: ReadTx) -> int:
    """The newest change's id; 0 when nothing has ever changed."""
    return await counters.get(tx, name="changes")


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget changes older than `at_ms`; the newest stays, for the counter to agree with."""
    newest = select(func.max(changes.c.id)).scalar_subquery()
    statement = changes.delete().where(changes.c.at_ms < at_ms, changes.c.id < newest)
    return (await tx.execute(statement)).rowcount


async def listen(database: Database, notify: Callable[[], None]) -> None:
    """Call `notify` whenever PostgreSQL says that something changed; ends with the connection."""
    ended = asyncio.Event()

    def on_notice(*_: Any) -> None:
        notify()

    def on_end(_: Any) -> None:
        ended.set()

    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        driver.add_termination_listener(on_end)
        await driver.add_listener(CHANNEL, on_notice)
        try:
            await ended.wait()
        finally:
            if not driver.is_closed():
                await driver.remove_listener(CHANNEL, on_notice)
                driver.remove_termination_listener(on_end)
