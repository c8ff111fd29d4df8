"""Accounts: the customers.

Owns the `accounts` table. Must not know keys, money or who may see whom. Account 0 has no row: it
is the installation itself, to which operator keys belong.
"""

from dataclasses import dataclass

from sqlalchemy import Select, insert, select, update

from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import accounts


@dataclass(frozen=True, slots=True)
class AccountRow:
    """A customer; `status` is active, suspended or cancelled, `time_zone` an IANA name."""

    id: int
    name: str
    status: str
    time_zone: str
    created_ms: int


async def insert_account(tx: WriteTx, *, name: str, time_zone: str) -> AccountRow:
    """Store an active account under a fresh id."""
    row = AccountRow(
        id=await counters.advance(tx, name="accounts"),
        name=name,
        status="active",
        time_zone=time_zone,
        created_ms=tx.now_ms,
    )
    await tx.execute(
        insert(accounts).values(
            id=row.id,
            name=row.name,
            status=row.status,
            time_zone=row.time_zone,
            created_ms=row.created_ms,
        )
    )
    return row


async def find_account(tx: ReadTx, *, account_id: int) -> AccountRow | None:
    """Return the account, or None."""
    row = (await tx.execute(_select().where(accounts.c.id == account_id))).one_or_none()
    return None if row is None else AccountRow(**row._mapping)


async def list_accounts(tx: ReadTx, *, after_id: int, limit: int) -> list[AccountRow]:
    """Return accounts with ids above `after_id`, oldest first."""
    query = _select().where(accounts.c.id > after_id).order_by(accounts.c.id).limit(limit)
    return [AccountRow(**row._mapping) for row in await tx.execute(query)]


async def set_status(tx: WriteTx, *, account_id: int, status: str) -> None:
    """Replace the account's status."""
    await tx.execute(update(accounts).where(accounts.c.id == account_id).values(status=status))


def _select() -> Select[tuple[int, str, str, str, int]]:
    return select(
        accounts.c.id,
        accounts.c.name,
        accounts.c.status,
        accounts.c.time_zone,
        accounts.c.created_ms,
    )
