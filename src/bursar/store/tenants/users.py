"""Users and memberships: the people, and which accounts they belong to in which role.

Owns the tables `users` (people are global: one e-mail address, one user) and `members`. Must not
know passwords, only their hashes, nor what a role allows.
"""

from sqlalchemy import func, insert, select

from bursar.core.errors import Conflict
from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import members, users


async def insert_user(tx: WriteTx, *, email: str, name: str, password_hash: str) -> int:
    """Store a person and return their id.

    Raises Conflict (`person_exists`) where somebody has the address: of several who store it at
    once all but the first wait for the counter, and see the first one's row then.
    """
    user_id = await counters.advance(tx, name="users")
    if (await tx.execute(select(users.c.id).where(users.c.email == email))).first() is not None:
        message = "Somebody with this address has just signed up. Send your password for it."
        raise Conflict("person_exists", message)
    await tx.execute(
        insert(users).values(
            id=user_id,
            email=email,
            name=name,
            password_hash=password_hash,
            created_ms=tx.now_ms,
        )
    )
    return user_id


async def insert_member(tx: WriteTx, *, account_id: int, user_id: int, role: str) -> None:
    """Make the user a member of the account: owner, admin, member or viewer."""
    await tx.execute(
        insert(members).values(
            account_id=account_id, user_id=user_id, role=role, created_ms=tx.now_ms
        )
    )


async def find_role(tx: ReadTx, *, account_id: int, user_id: int) -> str | None:
    """Return the user's role in the account; None for somebody who does not belong to it."""
    query = select(members.c.role).where(
        members.c.account_id == account_id, members.c.user_id == user_id
    )
    return (await tx.execute(query)).scalar_one_or_none()


async def list_names(tx: ReadTx, *, account_id: int) -> dict[int, str]:
    """Return the names of the account's members, by user id, for reports."""
    query = (
        select(users.c.id, func.coalesce(members.c.name, users.c.name).label("name"))
        .join_from(members, users, users.c.id == members.c.user_id)
        .where(members.c.account_id == account_id)
    )
    return {row.id: row.name for row in await tx.execute(query)}
