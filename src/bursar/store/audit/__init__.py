"""The audit log: noting a change in the transaction that makes it.

Owns how the rows of the tables `audit` and `audit_heads` come about. `record` is plain and quick;
the rows are written as the last thing before the transaction's announcements, because the end of a
chain is locked from then until the commit, and whoever holds it must wait for nothing else. Must
not know rules.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Final

from sqlalchemy import insert, update
from sqlalchemy.dialects import postgresql, sqlite

from bursar.core.audit import chains, events
from bursar.core.audit.chains import Link
from bursar.core.audit.events import AuditEvent
from bursar.store.database import POSTGRESQL, WriteTx
from bursar.store.tables import audit, audit_heads

_AT_ONCE: Final = 500
_AS_SERVER: Final = "SELECT set_config('role', 'none', true)"


def record(tx: WriteTx, event: AuditEvent) -> None:
    """Note a change: it is in the log if, and only if, the transaction commits.

    Who and from where is `tx.origin`. Raises InvariantViolated where a field is named as a secret.
    """
    if not tx.audited:
        tx.closing.append(partial(_write, tx))
    before, after = events.clean(event.before), events.clean(event.after)
    tx.audited.append(replace(event, before=before, after=after))


async def hold(tx: WriteTx, *, account_id: int) -> None:
    """Keep others from noting anything in a log until commit; for who must see all of it first."""
    await _lock_head(tx, account_id=account_id, count=0)


async def _write(tx: WriteTx) -> None:
    acting_in = tx.origin.account_id
    if tx.dialect == POSTGRESQL and any(each.account_id != acting_in for each in tx.audited):
        # What somebody does with what is theirs is of all their accounts, and the wall lets them
        # write into one. Nothing that the request asks for comes after this.
        await tx.driver(_AS_SERVER)
    # The chains in one order, so that no two who write to several wait for each other.
    for account_id in sorted({event.account_id for event in tx.audited}):
        await _append(tx, account_id, [e for e in tx.audited if e.account_id == account_id])


async def _append(tx: WriteTx, account_id: int, own: Sequence[AuditEvent]) -> None:
    last_id, previous = await _lock_head(tx, account_id=account_id, count=len(own))
    rows = []
    for number, event in enumerate(own, start=last_id - len(own) + 1):
        link = _link(tx, number, event)
        previous = chains.digest(link, previous=previous)
        rows.append({**asdict(link), "hash": previous})
    for first in range(0, len(rows), _AT_ONCE):
        await tx.execute(insert(audit).values(rows[first : first + _AT_ONCE]))
    head = update(audit_heads).where(audit_heads.c.account_id == account_id)
    await tx.execute(head.values(hash=previous))


async def _lock_head(tx: WriteTx, *, account_id: int, count: int) -> tuple[int, bytes]:
    """The id of the last of `count` new rows, and the hash that the first of them follows."""
    make = postgresql.insert if tx.dialect == POSTGRESQL else sqlite.insert
    start = make(audit_heads).values(account_id=account_id, last_id=count, hash=chains.START)
    statement = start.on_conflict_do_update(
        index_elements=[audit_heads.c.account_id],
        set_={"last_id": audit_heads.c.last_id + count},
    ).returning(audit_heads.c.last_id, audit_heads.c.hash)
    row = (await tx.execute(statement)).one()
    return int(row.last_id), bytes(row.hash)


def _link(tx: WriteTx, number: int, event: AuditEvent) -> Link:
    return Link(
        account_id=event.account_id,
        id=number,
        at_ms=tx.now_ms,
        action=str(event.action),
        target=event.target,
        actor=event.actor or tx.origin.actor,
        address=tx.origin.address,
        request_id=tx.origin.request_id,
        before=chains.encode(event.before),
        after=chains.encode(event.after),
    )
