"""Passkeys: the public halves of keys that people's devices keep.

Owns the `passkeys` table. A use of one is one guarded statement, so that a counter never goes back
however many use it at the same moment. Must not know signatures.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from bursar.core.errors import Conflict
from bursar.store import counters
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import passkeys


@dataclass(frozen=True, slots=True)
class PasskeyRow:
    """One passkey. `sign_count` is how often its device says it was used; synced ones say 0."""

    id: int
    user_id: int
    credential_id: bytes
    user_handle: bytes
    public_key: bytes
    sign_count: int
    name: str
    transports: str
    is_synced: int
    created_ms: int
    last_used_ms: int | None


async def insert_passkey(
    tx: WriteTx,
    *,
    user_id: int,
    credential_id: bytes,
    user_handle: bytes,
    public_key: bytes,
    sign_count: int,
    name: str,
    transports: str,
    is_synced: bool,
) -> PasskeyRow:
    """Store a passkey and return it; raises Conflict (`passkey_exists`), whosever it is."""
    row = PasskeyRow(
        id=await counters.advance(tx, name="passkeys"),
        user_id=user_id,
        credential_id=credential_id,
        user_handle=user_handle,
        public_key=public_key,
        sign_count=sign_count,
        name=name,
        transports=transports,
        is_synced=int(is_synced),
        created_ms=tx.now_ms,
        last_used_ms=None,
    )
    values = {each: getattr(row, each) for each in PasskeyRow.__dataclass_fields__}
    insertion: Any = postgresql.insert if tx.dialect == POSTGRESQL else sqlite.insert
    # Not asked for before: whoever is signed in may not see the rows of others.
    statement = (
        insertion(passkeys).values(**values).on_conflict_do_nothing().returning(passkeys.c.id)
    )
    if (await tx.execute(statement)).first() is None:
        raise Conflict("passkey_exists", "This passkey is registered already.")
    return row


async def find_by_credential(tx: ReadTx, *, credential_id: bytes) -> PasskeyRow | None:
    """Return the passkey that a device names, or None."""
    query = _select().where(passkeys.c.credential_id == credential_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _passkey(row)


async def find_passkey(tx: ReadTx, *, user_id: int, passkey_id: int) -> PasskeyRow | None:
    """Return a passkey of a person, or None."""
    query = _select().where(passkeys.c.id == passkey_id, passkeys.c.user_id == user_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _passkey(row)


async def list_passkeys(tx: ReadTx, *, user_id: int) -> list[PasskeyRow]:
    """Return a person's passkeys, oldest first."""
    query = _select().where(passkeys.c.user_id == user_id).order_by(passkeys.c.id)
    return [_passkey(row) for row in await tx.execute(query)]


async def has_any(tx: ReadTx, *, user_id: int) -> bool:
    """Whether a person has a passkey."""
    query = select(exists().where(passkeys.c.user_id == user_id))
    return bool((await tx.execute(query)).scalar_one())


async def count_passkeys(tx: ReadTx, *, user_id: int) -> int:
    """Return how many passkeys a person has."""
    query = select(func.count()).where(passkeys.c.user_id == user_id)
    return int((await tx.execute(query)).scalar_one())


async def use_passkey(tx: WriteTx, *, before: PasskeyRow, sign_count: int) -> bool:
    """Note a use; False when another use has come between, or the passkey is gone."""
    statement = (
        update(passkeys)
        .where(passkeys.c.id == before.id, passkeys.c.sign_count == before.sign_count)
        .values(sign_count=sign_count, last_used_ms=tx.now_ms)
    )
    return (await tx.execute(statement)).rowcount == 1


async def rename_passkey(tx: WriteTx, *, passkey_id: int, name: str) -> None:
    """Replace a passkey's name."""
    await tx.execute(update(passkeys).where(passkeys.c.id == passkey_id).values(name=name))


async def delete_passkey(tx: WriteTx, *, user_id: int, passkey_id: int) -> bool:
    """Forget a passkey; False when there is none like it."""
    statement = delete(passkeys).where(passkeys.c.id == passkey_id, passkeys.c.user_id == user_id)
    return (await tx.execute(statement)).rowcount == 1


def _select() -> Select[*tuple[Any, ...]]:
    return select(*(passkeys.c[name] for name in PasskeyRow.__dataclass_fields__))


def _passkey(row: Any) -> PasskeyRow:
    return PasskeyRow(**row._mapping)
