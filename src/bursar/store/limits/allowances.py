"""Allowances as people set and see them: limits, and the wallet's credit.

Owns reading allowances for reports and every change of `limit_amount`. What moves `used` and
`leased` is `store.plane`. Must not know why a limit changes.

The wallet is the allowance of scope `wallet`: its limit is all credit ever granted less corrections
downwards, its used part is all usage ever charged, so what is left of it is the balance.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Row, Text, and_, cast, insert, literal, select, update

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.errors import InvariantViolated
from bursar.core.money import MAX_NANOS
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import allowances, keys

_COST, _LIFETIME = "cost", "lifetime"
_COLUMNS: Final = (
    allowances.c.account_id,
    allowances.c.scope,
    allowances.c.resource,
    allowances.c.window_name,
    allowances.c.model,
    allowances.c.limit_amount,
    allowances.c.used,
    allowances.c.leased,
    allowances.c.window_start_ms,
)


def wallet(account_id: int) -> AllowanceRef:
    """The allowance that is the account's prepaid credit."""
    return AllowanceRef(account_id, "wallet", _COST, _LIFETIME)


def credit_limit(account_id: int, key_id: int) -> AllowanceRef:
    """The allowance that is the key's credit limit; every key has its row."""
    return AllowanceRef(account_id, f"key:{key_id}", _COST, _LIFETIME)


async def get_wallet(tx: ReadTx, *, account_id: int) -> Allowance:
    """Return the account's wallet; raises InvariantViolated when it has none."""
    query = select(*_COLUMNS).where(_is(wallet(account_id)))
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        raise InvariantViolated("wallet_missing", f"Account {account_id} has no wallet.")
    return _allowance(row)


async def list_wallets(tx: ReadTx, *, account_ids: Sequence[int]) -> dict[int, Allowance]:
    """Return the wallets of these accounts, by account id."""
    query = select(*_COLUMNS).where(
        allowances.c.account_id.in_(account_ids),
        allowances.c.scope == "wallet",
        allowances.c.resource == _COST,
        allowances.c.window_name == _LIFETIME,
        allowances.c.model == "",
    )
    return {row.account_id: _allowance(row) for row in await tx.execute(query)}


async def list_allowances(tx: ReadTx, *, account_id: int) -> list[Allowance]:
    """Return the account's allowances but those of deleted keys, sorted by name."""
    deleted = select(literal("key:") + cast(keys.c.id, Text)).where(
        keys.c.account_id == account_id, keys.c.deleted_ms.is_not(None)
    )
    return await _list(
        tx, allowances.c.account_id == account_id, allowances.c.scope.not_in(deleted)
    )


async def list_of_scope(tx: ReadTx, *, account_id: int, scope: str) -> list[Allowance]:
    """Return the account's allowances of one scope, sorted by name."""
    return await _list(tx, allowances.c.account_id == account_id, allowances.c.scope == scope)


async def insert_allowance(tx: WriteTx, *, ref: AllowanceRef, limit: int | None) -> None:
    """Store a new allowance of which nothing is used."""
    await tx.execute(
        insert(allowances).values(
            account_id=ref.account_id,
            scope=ref.scope,
            resource=ref.resource,
            window_name=ref.window,
            model=ref.model,
            limit_amount=limit,
            used=0,
            leased=0,
            window_start_ms=0,
        )
    )


async def set_limit(tx: WriteTx, *, ref: AllowanceRef, limit: int | None) -> bool:
    """Replace a limit; False when there is no such allowance.

    Used and leased may be above the new limit for a moment: nothing more is granted then, and
    workers recall their leases. Never used for wallets, whose credit moves by amounts.
    """
    return (
        await tx.execute(update(allowances).where(_is(ref)).values(limit_amount=limit))
    ).rowcount == 1


async def credit_wallet(tx: WriteTx, *, account_id: int, amount_nanos: int) -> bool:
    """Add credit; False when the sum would not fit 64 bits (or there is no wallet)."""
    statement = (
        update(allowances)
        .where(
            _is(wallet(account_id)),
            # Compared this way round, no intermediate sum can overflow.
            allowances.c.limit_amount <= MAX_NANOS - amount_nanos,
        )
        .values(limit_amount=allowances.c.limit_amount + amount_nanos)
    )
    return (await tx.execute(statement)).rowcount == 1


async def debit_wallet(tx: WriteTx, *, account_id: int, amount_nanos: int) -> bool:
    """Take credit away; False when that much is not free: used, or leased to workers."""
    free = allowances.c.limit_amount - allowances.c.used - allowances.c.leased
    statement = (
        update(allowances)
        .where(_is(wallet(account_id)), free >= amount_nanos)
        .values(limit_amount=allowances.c.limit_amount - amount_nanos)
    )
    return (await tx.execute(statement)).rowcount == 1


async def _list(tx: ReadTx, *conditions: ColumnElement[bool]) -> list[Allowance]:
    rows = await tx.execute(select(*_COLUMNS).where(*conditions))
    return sorted((_allowance(row) for row in rows), key=lambda row: row.ref.name)


def _is(ref: AllowanceRef) -> ColumnElement[bool]:
    return and_(
        allowances.c.account_id == ref.account_id,
        allowances.c.scope == ref.scope,
        allowances.c.resource == ref.resource,
        allowances.c.window_name == ref.window,
        allowances.c.model == ref.model,
    )


def _allowance(row: Row[*tuple[object, ...]]) -> Allowance:
    ref = AllowanceRef(*row[:5])  # type: ignore[arg-type]
    return Allowance(ref, *row[5:])  # type: ignore[arg-type]
