"""Metered events: the ids that an account has reported use under.

Owns the table `metered_events`. Ids are kept for good: a report that is sent again is
known, whenever that is. Must not know what was used.
"""

from collections.abc import Sequence

from sqlalchemy import insert, select

from bursar.store.database import ReadTx, WriteTx
from bursar.store.plane.charges import Charge
from bursar.store.tables import metered_events


async def list_known(tx: ReadTx, *, account_id: int, event_ids: Sequence[str]) -> set[str]:
    """Return those of the ids that the account has used."""
    query = select(metered_events.c.event_id).where(
        metered_events.c.account_id == account_id, metered_events.c.event_id.in_(event_ids)
    )
    return set((await tx.execute(query)).scalars())


async def insert_ids(tx: WriteTx, *, charges: Sequence[Charge]) -> None:
    """Store the ids of charges; one that the account has used is refused by the database."""
    rows = [
        {"account_id": each.account_id, "event_id": each.event_id, "at_ms": each.at_ms}
        for each in charges
    ]
    await tx.connection.execute(insert(metered_events), rows)
