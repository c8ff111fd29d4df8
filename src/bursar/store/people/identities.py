"""Identities: who people are at sign-in services.

Owns the `identities` table, and which memberships a service has given. Must not know how a service
is asked.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from bursar.core.errors import Conflict
from bursar.store import counters
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import identities, members


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """A person at a service; `email` is what the service said of them last."""

    id: int
    issuer: str
    subject: str
    user_id: int
    provider: str
    email: str
    created_ms: int
    last_used_ms: int


async def insert_identity(
    tx: WriteTx, *, issuer: str, subject: str, user_id: int, provider: str, email: str
) -> IdentityRow:
    """Store who a person is at a service; raises Conflict (`identity_taken`)."""
    row = IdentityRow(
        id=await counters.advance(tx, name="identities"),
        issuer=issuer,
        subject=subject,
        user_id=user_id,
        provider=provider,
        email=email,
        created_ms=tx.now_ms,
        last_used_ms=tx.now_ms,
    )
    values = {name: getattr(row, name) for name in IdentityRow.__dataclass_fields__}
    insertion: Any = postgresql.insert if tx.dialect == POSTGRESQL else sqlite.insert
    # Not asked for before: whoever is signed in may not see the rows of others.
    statement = insertion(identities).values(**values).on_conflict_do_nothing()
    if (await tx.execute(statement.returning(identities.c.id))).first() is None:
        message = "Somebody here is this person at the service already."
        raise Conflict("identity_taken", message)
    return row


async def find_identity(tx: ReadTx, *, issuer: str, subject: str) -> IdentityRow | None:
    """Return whom a service means, or None."""
    query = _select().where(identities.c.issuer == issuer, identities.c.subject == subject)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else IdentityRow(**row._mapping)


async def list_identities(tx: ReadTx, *, user_id: int) -> list[IdentityRow]:
    """Return who a person is elsewhere, oldest first."""
    query = _select().where(identities.c.user_id == user_id).order_by(identities.c.id)
    return [IdentityRow(**row._mapping) for row in await tx.execute(query)]


async def touch_identity(tx: WriteTx, *, identity_id: int, email: str) -> None:
    """Note that a service has spoken for a person, and what it said their address is."""
    statement = update(identities).where(identities.c.id == identity_id)
    await tx.execute(statement.values(last_used_ms=tx.now_ms, email=email))


async def delete_identity(tx: WriteTx, *, user_id: int, identity_id: int) -> bool:
    """Forget who a person is at a service; False when there is nothing like it."""
    statement = delete(identities).where(
        identities.c.id == identity_id, identities.c.user_id == user_id
    )
    return (await tx.execute(statement)).rowcount == 1


async def find_giver(tx: ReadTx, *, account_id: int, user_id: int) -> str | None:
    """Return the service that gave a membership; None for one by invitation, or none at all."""
    query = select(members.c.provider).where(*_membership(account_id, user_id))
    return (await tx.execute(query)).scalar_one_or_none()


async def set_giver(tx: WriteTx, *, account_id: int, user_id: int, provider: str) -> None:
    """Note that a service has given a membership."""
    statement = update(members).where(*_membership(account_id, user_id))
    await tx.execute(statement.values(provider=provider))


def _membership(account_id: int, user_id: int) -> tuple[Any, ...]:
    return members.c.account_id == account_id, members.c.user_id == user_id


def _select() -> Select[*tuple[Any, ...]]:
    return select(*(identities.c[name] for name in IdentityRow.__dataclass_fields__))
