"""Accounts: the customers.

Owns the `accounts` table. Must not know keys, money or who may see whom. Account 0 has no row: it
is the installation itself, to which operator keys belong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from sqlalchemy import Select, insert, select, update

from bursar.core.tenants.terms import (
    DEFAULT_CURRENCY,
    Feature,
    decode_features,
    encode_features,
)
from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import accounts


@dataclass(frozen=True, slots=True)
class AccountRow:
    """A customer; `status` is active, suspended or cancelled, `time_zone` an IANA name.

    `currency` is what invoices are made out in; every amount is in USD all the same.
    """

    id: int
    name: str
    status: str
    time_zone: str
    created_ms: int
    plan_id: int
    currency: str = DEFAULT_CURRENCY
    features: Mapping[str, Feature] = field(default_factory=dict, hash=False)


class AccountValues(TypedDict, total=False):
    """What may change of an account; its plan may too, with its allowances (`store.limits`)."""

    name: str
    time_zone: str
    currency: str
    features: Mapping[str, Feature]


async def insert_account(
    tx: WriteTx,
    *,
    name: str,
    time_zone: str,
    plan_id: int = 1,
    currency: str = DEFAULT_CURRENCY,
    features: Mapping[str, Feature] | None = None,
) -> AccountRow:
    """Store an active account under a fresh id."""
    row = AccountRow(
        id=await counters.advance(tx, name="accounts"),
        name=name,
        status="active",
        time_zone=time_zone,
        created_ms=tx.now_ms,
        plan_id=plan_id,
        currency=currency,
        features=dict(features or {}),
    )
    await tx.execute(
        insert(accounts).values(
            id=row.id,
            name=row.name,
            status=row.status,
            time_zone=row.time_zone,
            created_ms=row.created_ms,
            plan_id=row.plan_id,
            currency=currency,
            features=encode_features(row.features),
        )
    )
    return row


async def find_account(tx: ReadTx, *, account_id: int) -> AccountRow | None:
    """Return the account, or None."""
    row = (await tx.execute(_select().where(accounts.c.id == account_id))).one_or_none()
    return None if row is None else _account(row)


async def list_accounts(tx: ReadTx, *, after_id: int, limit: int) -> list[AccountRow]:
    """Return accounts with ids above `after_id`, oldest first."""
    query = _select().where(accounts.c.id > after_id).order_by(accounts.c.id).limit(limit)
    return [_account(row) for row in await tx.execute(query)]


async def lock_account(tx: WriteTx, *, account_id: int) -> None:
    """Keep others from changing an account until commit; on SQLite nobody else writes anyway."""
    query = select(accounts.c.id).where(accounts.c.id == account_id)
    await tx.execute(query.with_for_update())


async def set_status(tx: WriteTx, *, account_id: int, status: str) -> None:
    """Replace the account's status."""
    await tx.execute(update(accounts).where(accounts.c.id == account_id).values(status=status))


async def update_account(tx: WriteTx, *, account_id: int, values: AccountValues) -> None:
    """Replace the given columns of an account."""
    stored: dict[str, object] = {**values}
    if "features" in values:
        stored["features"] = encode_features(values["features"])
    await tx.execute(update(accounts).where(accounts.c.id == account_id).values(**stored))


async def find_features_for_update(tx: WriteTx, *, account_id: int) -> dict[str, Feature]:
    """Return the account's features, which the caller is going to change; none without one."""
    query = select(accounts.c.features).where(accounts.c.id == account_id).with_for_update()
    found = (await tx.execute(query)).scalar_one_or_none()
    return {} if found is None else decode_features(found)


def _account(row: Any) -> AccountRow:
    return AccountRow(**{**row._mapping, "features": decode_features(row.features)})


def _select() -> Select[*tuple[Any, ...]]:
    return select(
        accounts.c.id,
        accounts.c.name,
        accounts.c.status,
        accounts.c.time_zone,
        accounts.c.created_ms,
        accounts.c.plan_id,
        accounts.c.currency,
        accounts.c.features,
    )
