"""The change feed as its readers see it: what the control plane has told, in order.

Owns topics, reading, notification and forgetting. Changes are written by the transaction that makes
them (`database`).
"""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select

from bursar.store import counters
from bursar.store.connections.postgresql import driver_errors
from bursar.store.database import CHANNEL, Change, Database, ReadTx, WriteTx
from bursar.store.tables import changes

MOST_AT_ONCE = 1_000
_PING_S = 2.0
ACCOUNT, KEY, ALLOWANCE, PRICES = "account", "key", "allowance", "prices"
# Any account's defaults may have changed: announced for account 0.
PLAN = "plan"


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

    async with database.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        driver.add_termination_listener(on_end)
        try:
            with driver_errors():
                await driver.add_listener(CHANNEL, on_notice)
                while not await _happens(ended, within_s=_PING_S):
                    # A line that was cut without a word is silent, like one on which nothing
                    # happens: only an answer tells them apart.
                    await driver.execute("SELECT 1")
        finally:
            driver.remove_termination_listener(on_end)
            await connection.invalidate()


async def _happens(event: asyncio.Event, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
