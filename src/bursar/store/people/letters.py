"""Letters: invitations and password resets that were sent and not answered yet.

Owns the tables `invitations` and `password_resets`. An answered one is deleted by the statement
that answers it, so it counts once. Must not know tokens, only their hashes.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import invitations, password_resets


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """Somebody who may join an account under one address; `name` is "" where none was given."""

    id: int
    account_id: int
    email: str
    role: str
    invited_by: str
    created_ms: int
    expires_ms: int
    name: str


@dataclass(frozen=True, slots=True)
class ResetRow:
    """Somebody who may choose a new password, as long as they have this address."""

    user_id: int
    email: str
    expires_ms: int


async def replace_invitation(
    tx: WriteTx,
    *,
    account_id: int,
    email: str,
    role: str,
    token_hash: bytes,
    invited_by: str,
    expires_ms: int,
    name: str = "",
) -> InvitationRow:
    """Store an invitation in place of an earlier one to the same address."""
    await tx.execute(
        delete(invitations).where(
            invitations.c.account_id == account_id, invitations.c.email == email
        )
    )
    row = InvitationRow(
        id=await counters.advance(tx, name="invitations"),
        account_id=account_id,
        email=email,
        role=role,
        invited_by=invited_by,
        created_ms=tx.now_ms,
        expires_ms=expires_ms,
        name=name,
    )
    values = {each: getattr(row, each) for each in InvitationRow.__dataclass_fields__}
    await tx.execute(insert(invitations).values(token_hash=token_hash, **values))
    return row


async def list_invitations(tx: ReadTx, *, account_id: int, now_ms: int) -> list[InvitationRow]:
    """Return the account's open invitations, oldest first."""
    query = select(*_invitation()).where(
        invitations.c.account_id == account_id, invitations.c.expires_ms > now_ms
    )
    rows = await tx.execute(query.order_by(invitations.c.id))
    return [InvitationRow(**row._mapping) for row in rows]


async def count_invitations(tx: ReadTx, *, account_id: int) -> int:
    """Return how many invitations the account has out."""
    query = select(func.count()).where(invitations.c.account_id == account_id)
    return int((await tx.execute(query)).scalar_one())


async def find_invitation(tx: ReadTx, *, token_hash: bytes) -> InvitationRow | None:
    """Return the invitation of a token, an expired one too, or None."""
    query = select(*_invitation()).where(invitations.c.token_hash == token_hash)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else InvitationRow(**row._mapping)


async def find_open_invitation(
    tx: ReadTx, *, account_id: int, invitation_id: int, now_ms: int
) -> InvitationRow | None:
    """Return an open invitation of the account, or None."""
    query = select(*_invitation()).where(
        invitations.c.account_id == account_id,
        invitations.c.id == invitation_id,
        invitations.c.expires_ms > now_ms,
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else InvitationRow(**row._mapping)


async def rename_invitation(tx: WriteTx, *, account_id: int, invitation_id: int, name: str) -> None:
    """Replace what somebody who is invited is called."""
    statement = update(invitations).where(
        invitations.c.account_id == account_id, invitations.c.id == invitation_id
    )
    await tx.execute(statement.values(name=name))


async def delete_invitation(
    tx: WriteTx, *, account_id: int, invitation_id: int
) -> InvitationRow | None:
    """Take an invitation out and return it; None when it is not there (any more)."""
    statement = (
        delete(invitations)
        .where(invitations.c.account_id == account_id, invitations.c.id == invitation_id)
        .returning(*_invitation())
    )
    row = (await tx.execute(statement)).one_or_none()
    return None if row is None else InvitationRow(**row._mapping)


async def delete_invitations_of(tx: WriteTx, *, account_id: int, invited_by: str) -> None:
    """Take back all invitations that somebody has sent."""
    await tx.execute(
        delete(invitations).where(
            invitations.c.account_id == account_id, invitations.c.invited_by == invited_by
        )
    )


async def insert_reset(
    tx: WriteTx, *, user_id: int, email: str, token_hash: bytes, expires_ms: int
) -> None:
    """Store that somebody may choose a new password."""
    await tx.execute(
        insert(password_resets).values(
            token_hash=token_hash,
            user_id=user_id,
            email=email,
            created_ms=tx.now_ms,
            expires_ms=expires_ms,
        )
    )


async def find_reset(tx: ReadTx, *, token_hash: bytes) -> ResetRow | None:
    """Return the reset of a token, or None."""
    columns = [password_resets.c[name] for name in ResetRow.__dataclass_fields__]
    query = select(*columns).where(password_resets.c.token_hash == token_hash)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else ResetRow(**row._mapping)


async def take_reset(tx: WriteTx, *, token_hash: bytes) -> ResetRow | None:
    """Take a reset out and return it; None when it is not there (any more)."""
    statement = (
        delete(password_resets)
        .where(password_resets.c.token_hash == token_hash)
        .returning(*(password_resets.c[name] for name in ResetRow.__dataclass_fields__))
    )
    row = (await tx.execute(statement)).one_or_none()
    return None if row is None else ResetRow(**row._mapping)


async def delete_resets(tx: WriteTx, *, user_id: int) -> None:
    """Forget all resets of a person."""
    await tx.execute(delete(password_resets).where(password_resets.c.user_id == user_id))


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget letters that expired before `at_ms`; how many they were."""
    count = 0
    for table in (invitations, password_resets):
        count += (await tx.execute(delete(table).where(table.c.expires_ms < at_ms))).rowcount
    return count


def _invitation() -> list[Any]:
    return [invitations.c[name] for name in InvitationRow.__dataclass_fields__]
