"""Epochs: what makes a copy of a database another database, however alike the two are.

Owns how a copy begins its own life. Nothing that was leased when it was made holds in it: leases
are given back and workers closed, so that it cannot spend a second time what the original's
workers still spend. Its own workers get ids that no worker of the original has or will have: the
moment of the restore becomes the first of them, and workers are registered far more slowly than
milliseconds pass. So whoever still knows the original by heart is fenced, and two copies of one
backup are strangers to each other too.

Journals of the original's workers are not settled here, unless the copy takes the original's
place: else a charge could be booked in both. Must not know files.
"""

from typing import Final, NamedTuple

from sqlalchemy import delete, insert, select, update

from bursar.store.database import ReadTx, WriteTx
from bursar.store.plane.workers import CLOSED, LIVE
from bursar.store.tables import allowances, counters, leases, workers

_WORKERS: Final = "workers"
# Workers with an id up to this counter's value belonged to the database that this one copies.
_FORMER: Final = "former_workers"


class Voided(NamedTuple):
    """What of the original does not hold in the copy: how many leases, how many workers."""

    leases: int
    workers: int


async def begin(tx: WriteTx, *, takes_over: bool) -> Voided:
    """Make the database that was just filled from a copy one of its own.

    `takes_over`: the original is gone for good, so charges that only its workers' journals have are
    settled here.
    """
    await tx.execute(update(allowances).where(allowances.c.leased != 0).values(leased=0))
    voided = (await tx.execute(delete(leases).where(leases.c.amount != 0))).rowcount
    await tx.execute(delete(leases))
    closing = update(workers).where(workers.c.state == LIVE).values(state=CLOSED)
    closed = (await tx.execute(closing)).rowcount
    last_id = await pass_over(tx)
    if not takes_over:
        await _disown(tx, last_id)
    return Voided(voided, closed)


async def get_last_former(tx: ReadTx) -> int:
    """The highest id of a worker that was another database's; 0 where there is none."""
    query = select(counters.c.value).where(counters.c.name == _FORMER)
    return int((await tx.execute(query)).scalar() or 0)


async def pass_over(tx: WriteTx) -> int:
    """Leave out every id that the original may give; the last of them."""
    query = select(counters.c.value).where(counters.c.name == _WORKERS)
    last_id = max(int((await tx.execute(query)).scalar_one()) + 1, tx.now_ms)
    await tx.execute(update(counters).where(counters.c.name == _WORKERS).values(value=last_id))
    return last_id


async def _disown(tx: WriteTx, last_id: int) -> None:
    found = update(counters).where(counters.c.name == _FORMER).values(value=last_id)
    if (await tx.execute(found)).rowcount == 0:
        await tx.execute(insert(counters).values(name=_FORMER, value=last_id))
