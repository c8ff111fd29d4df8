"""Signing keys: whose signature on an access token counts.

Owns the `signing_keys` table. Must not know algorithms; private keys are sealed before they come.
"""

from dataclasses import dataclass, field

from sqlalchemy import delete, insert, select

from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import signing_keys


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    """A pair of keys, the private one sealed; the algorithm is the key's, never a token's."""

    id: str
    algorithm: str
    public_key: bytes
    sealed_private_key: bytes = field(repr=False)
    created_ms: int


async def insert_signing_key(tx: WriteTx, *, row: SigningKeyRow) -> None:
    """Store a pair of keys."""
    values = {name: getattr(row, name) for name in SigningKeyRow.__dataclass_fields__}
    await tx.execute(insert(signing_keys).values(**values))


async def find_signing_key(tx: ReadTx, *, key_id: str) -> SigningKeyRow | None:
    """Return the pair of keys with this id, or None."""
    columns = [signing_keys.c[name] for name in SigningKeyRow.__dataclass_fields__]
    row = (await tx.execute(select(*columns).where(signing_keys.c.id == key_id))).one_or_none()
    return None if row is None else SigningKeyRow(**row._mapping)


async def list_since(tx: ReadTx, *, since_ms: int) -> list[SigningKeyRow]:
    """Return the pairs that are younger than this, the youngest first."""
    columns = [signing_keys.c[name] for name in SigningKeyRow.__dataclass_fields__]
    query = select(*columns).where(signing_keys.c.created_ms > since_ms)
    ordered = query.order_by(signing_keys.c.created_ms.desc(), signing_keys.c.id)
    return [SigningKeyRow(**row._mapping) for row in await tx.execute(ordered)]


async def delete_others(tx: WriteTx, *, key_id: str) -> int:
    """Forget every pair but this one: what they signed does not count any more."""
    statement = delete(signing_keys).where(signing_keys.c.id != key_id)
    return (await tx.execute(statement)).rowcount


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget pairs that are older than this: what they signed does not count any more."""
    statement = delete(signing_keys).where(signing_keys.c.created_ms < at_ms)
    return (await tx.execute(statement)).rowcount
