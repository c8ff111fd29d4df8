"""API keys: their rows.

Owns the `keys` table. A key's credit limit is its allowance `key:<id>/cost/lifetime`, read beside
it here and written by `store.allowances`. Must not know secrets (only their hashes), nor who may do
what. A deleted key keeps its row, because usage points at it; operator keys belong to account 0,
which is no customer's and has no row in `accounts`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Text,
    and_,
    cast,
    func,
    insert,
    literal,
    select,
    update,
)

from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import allowances, keys

OPERATOR_ACCOUNT_ID: Final = 0


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as people see it; `credit_limit_nanos` None is unlimited."""

    id: int
    account_id: int
    user_id: int | None
    kind: str
    name: str
    prefix: str
    last6: str
    is_enabled: bool
    created_ms: int
    expires_ms: int | None
    credit_limit_nanos: int | None


@dataclass(frozen=True, slots=True)
class NewKeyRow:
    """What is stored of a key that is being made."""

    account_id: int
    user_id: int | None
    kind: str
    name: str
    secret_hash: bytes
    prefix: str
    last6: str
    expires_ms: int | None


class KeyValues(TypedDict, total=False):
    """What may change of a key; its limit is an allowance and not among it."""

    name: str
    is_enabled: int
    expires_ms: int | None


def encode_list(items: Sequence[str] | None) -> str | None:
    """Return a list as its column has it."""
    return None if items is None else json.dumps(list(items), separators=(",", ":"))


def decode_list(text: str | None) -> tuple[str, ...] | None:
    """Return a column's list."""
    return None if text is None else tuple(json.loads(text))


def decode_labels(text: str | None) -> Mapping[str, str]:
    """Return a column's labels; none are an empty mapping."""
    return {} if text is None else json.loads(text)


async def find_key(tx: ReadTx, *, account_id: int, key_id: int, kind: str) -> KeyRow | None:
    """Return the account's key of this kind; None for a deleted, unknown or foreign one."""
    query = _select_keys(keys.c.account_id == account_id, keys.c.id == key_id, keys.c.kind == kind)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _key(row)


async def list_keys(tx: ReadTx, *, account_id: int, kind: str) -> list[KeyRow]:
    """Return the account's keys of this kind that are not deleted, oldest first."""
    query = _select_keys(keys.c.account_id == account_id, keys.c.kind == kind)
    return [_key(row) for row in await tx.execute(query.order_by(keys.c.id))]


async def count_keys(tx: ReadTx, *, account_id: int, kind: str) -> int:
    """Return how many keys of this kind the account has, deleted ones not counted."""
    query = select(func.count()).where(
        keys.c.account_id == account_id, keys.c.kind == kind, keys.c.deleted_ms.is_(None)
    )
    return int((await tx.execute(query)).scalar_one())


async def list_names(tx: ReadTx, *, account_id: int) -> dict[int, str]:
    """Return the names of all keys that the account ever had, by id, for reports."""
    query = select(keys.c.id, keys.c.name).where(keys.c.account_id == account_id)
    return {row.id: row.name for row in await tx.execute(query)}


async def insert_key(tx: WriteTx, *, new: NewKeyRow) -> int:
    """Store a key, enabled, and return its id."""
    key_id = await counters.advance(tx, name="keys")
    await tx.execute(
        insert(keys).values(
            id=key_id,
            account_id=new.account_id,
            user_id=new.user_id,
            kind=new.kind,
            name=new.name,
            secret_hash=new.secret_hash,
            prefix=new.prefix,
            last6=new.last6,
            is_enabled=1,
            created_ms=tx.now_ms,
            expires_ms=new.expires_ms,
        )
    )
    return key_id


async def update_key(tx: WriteTx, *, account_id: int, key_id: int, values: KeyValues) -> bool:
    """Replace the given columns of a key; False when it is not there (any more).

    Only those: writing back what was read before would undo what somebody else, who disabled the
    key in between, has done.
    """
    statement = (
        update(keys)
        .where(keys.c.account_id == account_id, keys.c.id == key_id, keys.c.deleted_ms.is_(None))
        .values(**values)
    )
    return (await tx.execute(statement)).rowcount == 1


async def delete_key(tx: WriteTx, *, account_id: int, key_id: int, kind: str) -> bool:
    """Mark a key deleted for good; False when there is none that could be."""
    statement = (
        update(keys)
        .where(
            keys.c.account_id == account_id,
            keys.c.id == key_id,
            keys.c.kind == kind,
            keys.c.deleted_ms.is_(None),
        )
        .values(deleted_ms=tx.now_ms)
    )
    return (await tx.execute(statement)).rowcount == 1


def _select_keys(*conditions: ColumnElement[bool]) -> Select[*tuple[object, ...]]:
    limit = and_(
        allowances.c.account_id == keys.c.account_id,
        allowances.c.scope == literal("key:") + cast(keys.c.id, Text),
        allowances.c.resource == "cost",
        allowances.c.window_name == "lifetime",
        allowances.c.model == "",
    )
    return (
        select(
            keys.c.id,
            keys.c.account_id,
            keys.c.user_id,
            keys.c.kind,
            keys.c.name,
            keys.c.prefix,
            keys.c.last6,
            keys.c.is_enabled,
            keys.c.created_ms,
            keys.c.expires_ms,
            allowances.c.limit_amount,
        )
        .select_from(keys.outerjoin(allowances, limit))
        .where(*conditions, keys.c.deleted_ms.is_(None))
    )


def _key(row: Row[*tuple[object, ...]]) -> KeyRow:
    values = list(row)
    values[7] = bool(values[7])
    return KeyRow(*values)  # type: ignore[arg-type]
