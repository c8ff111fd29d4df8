"""Allowances as people set and see them: limits, and the wallet's credit.

Owns reading allowances for reports and every change of one `limit_amount` or `soft_amount` (those
of a plan's many rows are `plans`). What moves `used` and `leased` is `store.plane`. Must not know
why a limit changes.

The wallet is the allowance of scope `wallet`: its limit is all credit ever granted less corrections
downwards, its used part is all usage ever charged, so what is left of it is the balance.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    case,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from bursar.core.allowances import OWN, Allowance, AllowanceRef
from bursar.core.errors import InvariantViolated
from bursar.core.money import MAX_NANOS
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import allowances, keys, projects

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
    allowances.c.soft_amount,
    allowances.c.origin,
)


def is_set(row: Allowance) -> bool:
    """False for a row that limits nothing and only keeps what is in flight."""
    return not (row.limit is None and row.soft is None and row.origin == OWN)


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


async def list_limits(tx: ReadTx, *, account_id: int, scope: str | None = None) -> list[Allowance]:
    """Return the account's allowances, of one scope or of all but deleted ones, sorted by name."""
    where = [allowances.c.account_id == account_id]
    where += _living(account_id) if scope is None else [allowances.c.scope == scope]
    rows = await tx.execute(select(*_COLUMNS).where(*where))
    return sorted(map(_allowance, rows), key=lambda row: row.ref.name)


async def list_of_scope(tx: ReadTx, *, account_id: int, scope: str) -> list[Allowance]:
    """Return the account's allowances of one scope, sorted by name."""
    return await list_limits(tx, account_id=account_id, scope=scope)


async def list_of_scopes(
    tx: ReadTx, *, account_id: int, scopes: Sequence[str]
) -> dict[str, list[Allowance]]:
    """Return the account's allowances of these scopes, by scope."""
    found: dict[str, list[Allowance]] = {scope: [] for scope in scopes}
    query = select(*_COLUMNS).where(
        allowances.c.account_id == account_id, allowances.c.scope.in_(scopes)
    )
    for row in await tx.execute(query):
        found[row.scope].append(_allowance(row))
    return found


async def list_by_scope(
    tx: ReadTx, *, wanted: Collection[tuple[int, str]]
) -> dict[tuple[int, str], list[Allowance]]:
    """Return the allowances of these scopes, of any accounts: by account id and scope."""
    found: dict[tuple[int, str], list[Allowance]] = {}
    if wanted:
        where = tuple_(allowances.c.account_id, allowances.c.scope).in_(list(wanted))
        for row in await tx.execute(select(*_COLUMNS).where(where)):
            found.setdefault((row.account_id, row.scope), []).append(_allowance(row))
    return found


async def find_limit(tx: ReadTx, *, ref: AllowanceRef) -> Allowance | None:
    """Return one allowance, or None."""
    row = (await tx.execute(select(*_COLUMNS).where(_is(ref)))).one_or_none()
    return None if row is None else _allowance(row)


async def count_own_limits(tx: ReadTx, *, account_id: int, scope: str) -> int:
    """Return how many limits people have set on this scope."""
    query = select(func.count()).where(
        allowances.c.account_id == account_id,
        allowances.c.scope == scope,
        allowances.c.origin == OWN,
        or_(allowances.c.limit_amount.is_not(None), allowances.c.soft_amount.is_not(None)),
    )
    return int((await tx.execute(query)).scalar_one())


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


async def put_limit(
    tx: WriteTx,
    *,
    ref: AllowanceRef,
    limit: int | None,
    soft: int | None,
    origin: str,
    window_start_ms: int,
) -> None:
    """Set the limits of an allowance, and whose they are; makes it if there is none.

    `window_start_ms` is when the present window began. A new allowance counts from now on; one that
    is there keeps what is used and leased, unless its window has ended, as the next lease would
    find. Never used for wallets.
    """
    values = {"limit_amount": limit, "soft_amount": soft, "origin": origin}
    is_over = allowances.c.window_start_ms < window_start_ms
    rolled = {
        "used": case((is_over, 0), else_=allowances.c.used),
        "leased": case((is_over, 0), else_=allowances.c.leased),
        "window_start_ms": case((is_over, window_start_ms), else_=allowances.c.window_start_ms),
    }
    # One statement on both databases: between asking and writing, a worker may make the row.
    insertion: Any = postgresql.insert if tx.dialect == POSTGRESQL else sqlite.insert
    statement = insertion(allowances).values(
        account_id=ref.account_id,
        scope=ref.scope,
        resource=ref.resource,
        window_name=ref.window,
        model=ref.model,
        window_start_ms=window_start_ms,
        created_ms=tx.now_ms,
        **values,
    )
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=allowances.primary_key, set_={**values, **rolled}
        )
    )


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


def _living(account_id: int) -> list[ColumnElement[bool]]:
    """All scopes but keys and projects that are deleted."""
    conditions: list[ColumnElement[bool]] = []
    for kind, table in (("key", keys), ("project", projects)):
        deleted = select(literal(f"{kind}:") + cast(table.c.id, Text)).where(
            table.c.account_id == account_id, table.c.deleted_ms.is_not(None)
        )
        conditions.append(allowances.c.scope.not_in(deleted))
    return conditions


def _is(ref: AllowanceRef) -> ColumnElement[bool]:
    return and_(
        allowances.c.account_id == ref.account_id,
        allowances.c.scope == ref.scope,
        allowances.c.resource == ref.resource,
        allowances.c.window_name == ref.window,
        allowances.c.model == ref.model,
    )


def _allowance(row: Sequence[Any]) -> Allowance:
    ref = AllowanceRef(*row[:5])
    return Allowance(ref, *row[5:])
