"""Scopes: whether what a limit is for is there.

Owns the question alone; keys, projects and members are their own modules'. Must not know limits.
"""

from sqlalchemy import select

from bursar.store.database import ReadTx
from bursar.store.tables import keys, members, projects


async def is_key(tx: ReadTx, *, account_id: int, key_id: int, kind: str) -> bool:
    """Whether the account has this key, of this kind and not deleted."""
    query = select(keys.c.id).where(
        keys.c.account_id == account_id,
        keys.c.id == key_id,
        keys.c.kind == kind,
        keys.c.deleted_ms.is_(None),
    )
    return (await tx.execute(query)).first() is not None


async def is_project(tx: ReadTx, *, account_id: int, project_id: int) -> bool:
    """Whether the account has this project, not deleted."""
    query = select(projects.c.id).where(
        projects.c.account_id == account_id,
        projects.c.id == project_id,
        projects.c.deleted_ms.is_(None),
    )
    return (await tx.execute(query)).first() is not None


async def is_member(tx: ReadTx, *, account_id: int, user_id: int) -> bool:
    """Whether this user belongs to the account."""
    query = select(members.c.user_id).where(
        members.c.account_id == account_id, members.c.user_id == user_id
    )
    return (await tx.execute(query)).first() is not None
