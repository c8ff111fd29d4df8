"""The ledger: transfers, and the statement that they and the usage rows make together.

Owns the `transfers` table. Nothing here updates or deletes: a correction is a new row. A charge has
no transfer row of its own, because its usage row is the transfer (wallet to revenue); the statement
reads both. Must not know balances.
"""

from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import BigInteger, case, insert, or_, select, tuple_

from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import transfers, usage_events

WALLET = "wallet"


class EntryKind(IntEnum):
    """Which table an entry is from; of two entries of one moment the higher is shown first."""

    USAGE = 0
    TRANSFER = 1


@dataclass(frozen=True, slots=True)
class NewTransfer:
    """One movement of money that is about to be stored; `amount_nanos` is above 0."""

    account_id: int
    kind: str
    source: str
    target: str
    amount_nanos: int
    note: str
    actor: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an account's statement; `amount_nanos` is signed as the wallet sees it."""

    type: EntryKind
    at_ms: int
    id: str
    kind: str
    amount_nanos: int
    note: str
    key_id: int | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a statement: just behind the entry with these coordinates."""

    at_ms: int
    type: EntryKind
    id: str


async def insert_transfer(tx: WriteTx, *, new: NewTransfer) -> Entry:
    """Store a transfer from or to the wallet and return its line of the statement."""
    transfer_id = await counters.advance(tx, name="transfers")
    await tx.execute(
        insert(transfers).values(
            account_id=new.account_id,
            id=transfer_id,
            at_ms=tx.now_ms,
            kind=new.kind,
            source=new.source,
            target=new.target,
            amount_nanos=new.amount_nanos,
            note=new.note,
            actor=new.actor,
            reference="",
        )
    )
    sign = 1 if new.target == WALLET else -1
    return Entry(
        type=EntryKind.TRANSFER,
        at_ms=tx.now_ms,
        id=str(transfer_id),
        kind=new.kind,
        amount_nanos=sign * new.amount_nanos,
        note=new.note,
        key_id=None,
        model=None,
    )


async def list_entries(
    tx: ReadTx, *, account_id: int, behind: Position | None, limit: int
) -> list[Entry]:
    """Return what moved the account's wallet, newest first.

    Both tables are asked for a whole page and merged here: each can walk its own index, which no
    union of them could.
    """
    moved = await _list_transfers(tx, account_id=account_id, behind=behind, limit=limit)
    used = await _list_usage(tx, account_id=account_id, behind=behind, limit=limit)
    # Sorted by moment and table alone: within a table, its database has put them in order.
    merged = sorted(moved + used, key=lambda entry: (entry.at_ms, entry.type), reverse=True)
    return merged[:limit]


async def _list_transfers(
    tx: ReadTx, *, account_id: int, behind: Position | None, limit: int
) -> list[Entry]:
    signed = case(
        (transfers.c.target == WALLET, transfers.c.amount_nanos), else_=-transfers.c.amount_nanos
    )
    query = (
        select(
            transfers.c.at_ms,
            transfers.c.id,
            transfers.c.kind,
            signed.label("amount"),
            transfers.c.note,
        )
        .where(
            transfers.c.account_id == account_id,
            or_(transfers.c.source == WALLET, transfers.c.target == WALLET),
        )
        .order_by(transfers.c.at_ms.desc(), transfers.c.id.desc())
        .limit(limit)
    )
    if behind is not None and behind.type is EntryKind.TRANSFER:
        place = tuple_(transfers.c.at_ms, transfers.c.id, types=[BigInteger, BigInteger])
        query = query.where(place < (behind.at_ms, int(behind.id)))
    elif behind is not None:
        query = query.where(transfers.c.at_ms < behind.at_ms)
    return [
        Entry(
            type=EntryKind.TRANSFER,
            at_ms=row.at_ms,
            id=str(row.id),
            kind=row.kind,
            amount_nanos=int(row.amount),
            note=row.note,
            key_id=None,
            model=None,
        )
        for row in await tx.execute(query)
    ]


async def _list_usage(
    tx: ReadTx, *, account_id: int, behind: Position | None, limit: int
) -> list[Entry]:
    event = usage_events.c
    query = (
        select(event.at_ms, event.event_id, event.cost_nanos, event.key_id, event.model)
        .where(event.account_id == account_id, event.cost_nanos > 0)
        .order_by(event.at_ms.desc(), event.event_id.desc())
        .limit(limit)
    )
    if behind is not None and behind.type is EntryKind.USAGE:
        query = query.where(tuple_(event.at_ms, event.event_id) < (behind.at_ms, behind.id))
    elif behind is not None:
        query = query.where(event.at_ms <= behind.at_ms)
    return [
        Entry(
            type=EntryKind.USAGE,
            at_ms=row.at_ms,
            id=row.event_id,
            kind="usage",
            amount_nanos=-row.cost_nanos,
            note="",
            key_id=row.key_id or None,
            model=row.model,
        )
        for row in await tx.execute(query)
    ]
