"""Ids: one counter row a noun, advanced in the transaction that uses the number.

A counter row is locked until commit, so ids are gapless and in order of commit on both databases.
"""

from sqlalchemy import select, update

from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import counters

NAMES = (
    "accounts",
    "users",
    "projects",
    "keys",
    "transfers",
    "prices",
    "plans",
    "alerts",
    "sessions",
    "invitations",
    "passkeys",
    "identities",
    "workers",
    "changes",
)


async def advance(tx: WriteTx, *, name: str, by: int = 1) -> int:
    """Advance the counter by `by` and return its new value: the last of `by` fresh ids."""
    statement = (
        update(counters)
        .where(counters.c.name == name)
        .values(value=counters.c.value + by)
        .returning(counters.c.value)
    )
    return int((await tx.execute(statement)).scalar_one())


async def raise_to(tx: WriteTx, *, name: str, least: int) -> None:
    """Have the counter go on from `least`, if it has not come so far."""
    behind = (counters.c.name == name) & (counters.c.value < least)
    await tx.execute(update(counters).where(behind).values(value=least))


async def get(tx: ReadTx, *, name: str) -> int:
    """The counter's value, without advancing it."""
    query = select(counters.c.value).where(counters.c.name == name)
    return int((await tx.execute(query)).scalar_one())
