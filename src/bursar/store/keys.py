"""API keys: their rows, and what a presented secret gives access to.

Owns the `keys` table. A key's credit limit is its allowance `key:<id>/cost/lifetime`, read beside
it here and written by `store.allowances`. Must not know secrets (only their hashes), nor who may do
what. A deleted key keeps its row, because usage points at it; operator keys belong to account 0,
which is no customer's and has no row in `accounts`.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
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

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import accounts, allowances, keys

OPERATOR_ACCOUNT_ID: Final = 0


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A key as those who check secrets need it: its state, its account's, and its limits.

    `expires_ms` is when this secret stops: the key's expiry or, for the secret before the last
    rotation, the end of its grace where that is sooner. One key may so have two secrets.

    `models` are patterns, `networks` are texts for `permissions.parse_networks`; for these and
    `endpoints` None is no restriction. `labels` go with every call; `label_names` are those that a
    caller may set (None: none). `allowances` are those of wallet, account, project, user and key,
    in the order of locking.
    """

    key_id: int
    account_id: int
    user_id: int | None
    project_id: int | None
    kind: str
    name: str
    is_enabled: bool
    expires_ms: int | None
    is_deleted: bool
    account_status: str
    time_zone: str
    environment: str
    labels: Mapping[str, str]
    label_names: tuple[str, ...] | None
    models: tuple[str, ...] | None
    endpoints: tuple[str, ...] | None
    networks: tuple[str, ...] | None
    allowances: tuple[Allowance, ...]


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


_CREDENTIALS: Final = select(
    keys.c.secret_hash,
    keys.c.previous_hash,
    keys.c.previous_until_ms,
    keys.c.id,
    keys.c.account_id,
    keys.c.user_id,
    keys.c.project_id,
    keys.c.kind,
    keys.c.name,
    keys.c.is_enabled,
    keys.c.expires_ms,
    keys.c.deleted_ms,
    keys.c.environment,
    keys.c.labels,
    keys.c.label_names,
    keys.c.models,
    keys.c.endpoints,
    keys.c.networks,
    # A key whose account is gone opens nothing; only the installation's own has no row.
    case(
        (keys.c.account_id == OPERATOR_ACCOUNT_ID, "active"),
        else_=func.coalesce(accounts.c.status, "cancelled"),
    ).label("account_status"),
    func.coalesce(accounts.c.time_zone, "UTC").label("time_zone"),
).select_from(keys.outerjoin(accounts, accounts.c.id == keys.c.account_id))


async def find_credential(tx: ReadTx, *, secret_hash: bytes) -> CredentialRow | None:
    """Return what the secret with this SHA-256 belongs to, deleted and disabled keys included."""
    return (await find_credentials(tx, secret_hashes=[secret_hash])).get(secret_hash)


async def find_credentials(
    tx: ReadTx, *, secret_hashes: Sequence[bytes]
) -> dict[bytes, CredentialRow]:
    """Return what secrets belong to, by their SHA-256; unknown ones are absent."""
    query = _CREDENTIALS.where(
        or_(keys.c.secret_hash.in_(secret_hashes), keys.c.previous_hash.in_(secret_hashes))
    )
    rows = list(await tx.execute(query))
    scopes = {row.id: _scopes(row) for row in rows}
    wanted = {(row.account_id, scope) for row in rows for scope in scopes[row.id]}
    limits = await _list_limits(tx, wanted=wanted)
    asked = frozenset(secret_hashes)
    found: dict[bytes, CredentialRow] = {}
    for row in rows:
        credential = _credential(row, _of_scopes(limits, row.account_id, scopes[row.id]))
        if row.secret_hash in asked:
            found[bytes(row.secret_hash)] = credential
        if row.previous_hash in asked:
            until_ms = min(row.previous_until_ms, row.expires_ms or row.previous_until_ms)
            found[bytes(row.previous_hash)] = replace(credential, expires_ms=until_ms)
    return found


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


def _credential(row: Row[*tuple[object, ...]], limits: tuple[Allowance, ...]) -> CredentialRow:
    return CredentialRow(
        key_id=row.id,
        account_id=row.account_id,
        user_id=row.user_id,
        project_id=row.project_id,
        kind=row.kind,
        name=row.name,
        is_enabled=bool(row.is_enabled),
        expires_ms=row.expires_ms,
        is_deleted=row.deleted_ms is not None,
        account_status=row.account_status,
        time_zone=row.time_zone,
        environment=row.environment,
        labels=decode_labels(row.labels),
        label_names=decode_list(row.label_names),
        models=decode_list(row.models),
        endpoints=decode_list(row.endpoints),
        networks=decode_list(row.networks),
        allowances=limits,
    )


def _scopes(row: Row[*tuple[object, ...]]) -> tuple[str, ...]:
    scopes = ["wallet", "account", f"key:{row.id}"]
    if row.project_id is not None:
        scopes.append(f"project:{row.project_id}")
    if row.user_id is not None:
        scopes.append(f"user:{row.user_id}")
    return tuple(scopes)


async def _list_limits(
    tx: ReadTx, *, wanted: Collection[tuple[int, str]]
) -> dict[tuple[int, str], list[Allowance]]:
    """The allowances of these scopes (account id, scope)."""
    found: dict[tuple[int, str], list[Allowance]] = {}
    if not wanted:
        return found
    query = select(
        allowances.c.account_id,
        allowances.c.scope,
        allowances.c.resource,
        allowances.c.window_name,
        allowances.c.model,
        allowances.c.limit_amount,
        allowances.c.used,
        allowances.c.leased,
        allowances.c.window_start_ms,
    ).where(tuple_(allowances.c.account_id, allowances.c.scope).in_(list(wanted)))
    for row in await tx.execute(query):
        allowance = Allowance(AllowanceRef(*row[:5]), *row[5:])  # type: ignore[call-arg]
        found.setdefault((row.account_id, row.scope), []).append(allowance)
    return found


def _of_scopes(
    limits: dict[tuple[int, str], list[Allowance]], account_id: int, scopes: tuple[str, ...]
) -> tuple[Allowance, ...]:
    # Sorted here and not by the database, whose collation may order scopes otherwise than Python.
    found = [row for scope in scopes for row in limits.get((account_id, scope), ())]
    return tuple(sorted(found, key=lambda row: row.ref))
