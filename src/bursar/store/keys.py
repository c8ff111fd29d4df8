"""API keys: their rows.

Owns the `keys` table. A key's credit limit is its allowance `key:<id>/cost/lifetime`, read beside
it here and written by `store.limits`. Must not know secrets (only their hashes), nor who may do
what. A deleted key keeps its row, because usage points at it; operator keys belong to account 0,
which is no customer's and has no row in `accounts`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from bursar.core.permissions import encode_labels
from bursar.store import counters
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import allowances, keys

OPERATOR_ACCOUNT_ID: Final = 0


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as people see it; `credit_limit_nanos` None is unlimited.

    For `models`, `endpoints` and `networks` None is no restriction; `label_names` are those that a
    caller may set (None: none). Until `previous_until_ms` the secret before the last rotation
    works too. `leaked_ms` is when somebody last reported that its secret is public.
    """

    id: int
    account_id: int
    user_id: int | None
    project_id: int | None
    kind: str
    name: str
    prefix: str
    last6: str
    is_enabled: bool
    created_ms: int
    expires_ms: int | None
    environment: str
    description: str
    labels: Mapping[str, str]
    label_names: tuple[str, ...] | None
    models: tuple[str, ...] | None
    endpoints: tuple[str, ...] | None
    networks: tuple[str, ...] | None
    rotated_ms: int | None
    previous_until_ms: int | None
    leaked_ms: int | None
    credit_limit_nanos: int | None


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys: None is any. `text` is part of a name, a description or the end of a secret.

    `label` is a name and a value, or a name alone (value None).
    """

    text: str | None = None
    project_id: int | None = None
    user_id: int | None = None
    environment: str | None = None
    is_enabled: bool | None = None
    label: tuple[str, str | None] | None = None


class KeyValues(TypedDict, total=False):
    """Columns of a key that people set; its limit is an allowance and not among them."""

    name: str
    is_enabled: int
    expires_ms: int | None
    project_id: int | None
    user_id: int | None
    environment: str
    description: str
    labels: str | None
    label_names: str | None
    models: str | None
    endpoints: str | None
    networks: str | None


@dataclass(frozen=True, slots=True)
class SecretRow:
    """What is stored of a secret."""

    hash: bytes
    prefix: str
    last6: str


@dataclass(frozen=True, slots=True)
class LeakedRow:
    """The key that a reported secret opens; `is_present` False: its secret before a rotation."""

    account_id: int
    key_id: int
    kind: str
    name: str
    is_present: bool


def encode_list(items: Sequence[str] | None) -> str | None:
    """Return a list as its column has it."""
    return None if items is None else json.dumps(list(items), separators=(",", ":"))


def decode_list(text: str | None) -> tuple[str, ...] | None:
    """Return a column's list."""
    return None if text is None else tuple(json.loads(text))


def decode_labels(text: str | None) -> Mapping[str, str]:
    """Return a column's labels; none are an empty mapping."""
    return {} if text is None else json.loads(text)


def has_label(
    tx: ReadTx, column: ColumnElement[str], label: tuple[str, str | None]
) -> ColumnElement[bool]:
    """The condition that labels, as they are stored, have this name (and this value).

    In that text each quotation mark inside a value is escaped, so no value can look like a label.
    """
    name, value = label
    part = f'"{name}":' if value is None else encode_labels({name: value})[1:-1]
    # Not LIKE, for which SQLite takes upper and lower case for the same.
    find = func.strpos if tx.dialect == POSTGRESQL else func.instr
    return find(column, part) > 0


async def find_key(tx: ReadTx, *, account_id: int, key_id: int, kind: str | None) -> KeyRow | None:
    """Return the account's key of this kind (None: any); None for a deleted or foreign one."""
    query = _select_keys(keys.c.account_id == account_id, keys.c.id == key_id, *_of_kind(kind))
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _key(dict(row._mapping))


async def list_keys(
    tx: ReadTx,
    *,
    account_id: int,
    kind: str | None,
    where: KeyFilter | None = None,
    after_id: int = 0,
    limit: int | None = None,
) -> list[KeyRow]:
    """Return the account's keys of this kind (None: any) that are not deleted, oldest first."""
    query = _select_keys(keys.c.account_id == account_id, keys.c.id > after_id, *_of_kind(kind))
    if where is not None:
        query = query.where(*_conditions(tx, where))
    rows = await tx.execute(query.order_by(keys.c.id).limit(limit))
    return [_key(dict(row._mapping)) for row in rows]


async def count_keys(
    tx: ReadTx, *, account_id: int, kind: str, project_id: int | None = None
) -> int:
    """Return how many keys of this kind the account (or project) has, but deleted ones."""
    query = select(func.count()).where(
        keys.c.account_id == account_id, keys.c.kind == kind, keys.c.deleted_ms.is_(None)
    )
    if project_id is not None:
        query = query.where(keys.c.project_id == project_id)
    return int((await tx.execute(query)).scalar_one())


async def list_names(tx: ReadTx, *, account_id: int) -> dict[int, str]:
    """Return the names of all keys that the account ever had, by id, for reports."""
    query = select(keys.c.id, keys.c.name).where(keys.c.account_id == account_id)
    return {row.id: row.name for row in await tx.execute(query)}


async def insert_key(
    tx: WriteTx, *, account_id: int, kind: str, secret: SecretRow, values: KeyValues
) -> int:
    """Store a key, enabled unless its values say otherwise, and return its id."""
    key_id = await counters.advance(tx, name="keys")
    row: dict[str, Any] = {"is_enabled": 1, **values}
    await tx.execute(
        insert(keys).values(
            account_id=account_id,
            id=key_id,
            kind=kind,
            secret_hash=secret.hash,
            prefix=secret.prefix,
            last6=secret.last6,
            created_ms=tx.now_ms,
            **row,
        )
    )
    return key_id


async def update_key(tx: WriteTx, *, account_id: int, key_id: int, values: KeyValues) -> bool:
    """Replace the given columns of a key; False when it is not there (any more).

    Only those: writing back what was read before would undo what somebody else, who disabled the
    key in between, has done.
    """
    statement = update(keys).where(_is(account_id, key_id)).values(**values)
    return (await tx.execute(statement)).rowcount == 1


async def rotate_key(
    tx: WriteTx, *, account_id: int, key_id: int, kind: str, secret: SecretRow, grace_ms: int
) -> bool:
    """Give a key another secret; the present one works for `grace_ms` more. False: no such key.

    A secret that was in its grace already stops at once: there are never more than two.
    """
    has_grace = grace_ms > 0
    statement = (
        update(keys)
        .where(_is(account_id, key_id), keys.c.kind == kind)
        .values(
            # The column's own value, so that of two rotations at once neither loses its secret.
            previous_hash=keys.c.secret_hash if has_grace else None,
            previous_until_ms=tx.now_ms + grace_ms if has_grace else None,
            secret_hash=secret.hash,
            prefix=secret.prefix,
            last6=secret.last6,
            rotated_ms=tx.now_ms,
        )
    )
    return (await tx.execute(statement)).rowcount == 1


async def find_leaked(tx: WriteTx, *, secret_hash: bytes) -> LeakedRow | None:
    """Return the key, not deleted, that this secret opens or could still open; locks it."""
    query = (
        select(
            keys.c.account_id,
            keys.c.id.label("key_id"),
            keys.c.kind,
            keys.c.name,
            (keys.c.secret_hash == secret_hash).label("is_present"),
        )
        .where(
            or_(
                keys.c.secret_hash == secret_hash,
                and_(keys.c.previous_hash == secret_hash, keys.c.previous_until_ms > tx.now_ms),
            ),
            keys.c.deleted_ms.is_(None),
        )
        .with_for_update()
    )
    row = (await tx.execute(query)).first()
    if row is None:
        return None
    return LeakedRow(row.account_id, row.key_id, row.kind, row.name, bool(row.is_present))


async def stop_leaked(tx: WriteTx, *, leaked: LeakedRow) -> None:
    """Have the reported secret open nothing: disable its key, or end the grace of a rotation."""
    values: dict[str, Any] = {"is_enabled": 0, "leaked_ms": tx.now_ms}
    if not leaked.is_present:
        values = {"previous_hash": None, "previous_until_ms": None, "leaked_ms": keys.c.leaked_ms}
    statement = update(keys).where(_is(leaked.account_id, leaked.key_id)).values(**values)
    await tx.execute(statement)


async def delete_key(tx: WriteTx, *, account_id: int, key_id: int, kind: str) -> bool:
    """Mark a key deleted for good; False when there is none that could be."""
    statement = (
        update(keys)
        .where(_is(account_id, key_id), keys.c.kind == kind)
        .values(deleted_ms=tx.now_ms)
    )
    return (await tx.execute(statement)).rowcount == 1


def _of_kind(kind: str | None) -> list[ColumnElement[bool]]:
    return [] if kind is None else [keys.c.kind == kind]


def _is(account_id: int, key_id: int) -> ColumnElement[bool]:
    return and_(keys.c.account_id == account_id, keys.c.id == key_id, keys.c.deleted_ms.is_(None))


def _conditions(tx: ReadTx, where: KeyFilter) -> list[ColumnElement[bool]]:
    columns = {
        keys.c.project_id: where.project_id,
        keys.c.user_id: where.user_id,
        keys.c.environment: where.environment,
        keys.c.is_enabled: None if where.is_enabled is None else int(where.is_enabled),
    }
    found = [column == value for column, value in columns.items() if value is not None]
    if where.text is not None:
        # Escaped, so that % and _ are what they look like.
        found.append(
            or_(
                keys.c.name.icontains(where.text, autoescape=True),
                keys.c.description.icontains(where.text, autoescape=True),
                keys.c.last6 == where.text,
            )
        )
    if where.label is not None:
        found.append(has_label(tx, keys.c.labels, where.label))
    return found


def _select_keys(*conditions: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    limit = and_(
        allowances.c.account_id == keys.c.account_id,
        allowances.c.scope == literal("key:") + cast(keys.c.id, Text),
        allowances.c.resource == "cost",
        allowances.c.window_name == "lifetime",
        allowances.c.model == "",
    )
    columns = [keys.c[name] for name in KeyRow.__dataclass_fields__ if name != "credit_limit_nanos"]
    return (
        select(*columns, allowances.c.limit_amount.label("credit_limit_nanos"))
        .select_from(keys.outerjoin(allowances, limit))
        .where(*conditions, keys.c.deleted_ms.is_(None))
    )


def _key(row: Mapping[str, Any]) -> KeyRow:
    lists = ("label_names", "models", "endpoints", "networks")
    return KeyRow(
        **{
            **row,
            **{name: decode_list(row[name]) for name in lists},
            "labels": decode_labels(row["labels"]),
            "is_enabled": bool(row["is_enabled"]),
        }
    )
