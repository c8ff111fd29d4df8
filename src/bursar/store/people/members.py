"""Members: people as an account has them, and as sign-in looks for them.

Owns reading and changing `users` and `members` beyond the first ones (`store.tenants.users` makes
those). Must not know passwords, only their hashes, nor what a role allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, delete, func, select, update

from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import keys, members, project_members, users


@dataclass(frozen=True, slots=True)
class UserRow:
    """A person, whatever accounts they belong to."""

    id: int
    email: str
    name: str
    password_hash: str = field(repr=False)
    created_ms: int
    disabled_ms: int | None


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A person in an account; disabled either there or everywhere.

    The name is the account's own for them, where it has one.
    """

    user_id: int
    account_id: int
    email: str
    name: str
    role: str
    created_ms: int
    is_enabled: bool


async def find_user(
    tx: ReadTx, *, email: str | None = None, user_id: int | None = None
) -> UserRow | None:
    """Return a person by their address (in its one spelling) or their id, or None."""
    columns = [users.c[name] for name in UserRow.__dataclass_fields__]
    is_it = users.c.email == email if user_id is None else users.c.id == user_id
    row = (await tx.execute(select(*columns).where(is_it))).one_or_none()
    return None if row is None else UserRow(**row._mapping)


async def list_users(
    tx: ReadTx, *, after_id: int, limit: int, email: str | None = None
) -> list[UserRow]:
    """Return people with ids above `after_id`, by id; only who has this address, if it is given."""
    columns = [users.c[name] for name in UserRow.__dataclass_fields__]
    query = select(*columns).where(users.c.id > after_id).order_by(users.c.id).limit(limit)
    if email is not None:
        query = query.where(users.c.email == email)
    return [UserRow(**row._mapping) for row in await tx.execute(query)]


async def lock_user(tx: WriteTx, *, user_id: int) -> None:
    """Keep others from changing a person until commit; on SQLite nobody else writes anyway."""
    await tx.execute(select(users.c.id).where(users.c.id == user_id).with_for_update())


async def update_user(
    tx: WriteTx, *, user_id: int, name: str | None = None, password_hash: str | None = None
) -> None:
    """Replace a person's name, and what accounts call them, or the hash of their password."""
    given = {"name": name, "password_hash": password_hash}
    values = {column: value for column, value in given.items() if value is not None}
    await tx.execute(update(users).where(users.c.id == user_id).values(**values))
    if name is not None:
        await tx.execute(update(members).where(members.c.user_id == user_id).values(name=None))


async def replace_hash(tx: WriteTx, *, user_id: int, before: str, after: str) -> bool:
    """Put a hash of the same password in its place; False where it is another password by now."""
    is_it = users.c.id == user_id, users.c.password_hash == before
    statement = update(users).where(*is_it).values(password_hash=after)
    return (await tx.execute(statement)).rowcount == 1


async def set_user_enabled(tx: WriteTx, *, user_id: int, is_enabled: bool) -> None:
    """Let a person sign in or not, whatever their accounts say."""
    disabled_ms = None if is_enabled else tx.now_ms
    await tx.execute(update(users).where(users.c.id == user_id).values(disabled_ms=disabled_ms))


async def find_member(tx: ReadTx, *, account_id: int, user_id: int) -> MemberRow | None:
    """Return somebody as this account has them; None for somebody who does not belong to it."""
    query = _select().where(members.c.account_id == account_id, members.c.user_id == user_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _member(row)


async def find_by_email(tx: ReadTx, *, account_id: int, email: str) -> MemberRow | None:
    """Return a member by their address, or None."""
    query = _select().where(members.c.account_id == account_id, users.c.email == email)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _member(row)


async def list_members(
    tx: ReadTx, *, account_id: int, after_id: int, limit: int
) -> list[MemberRow]:
    """Return the account's members with ids above `after_id`, by id."""
    query = _select().where(members.c.account_id == account_id, members.c.user_id > after_id)
    return [_member(row) for row in await tx.execute(query.order_by(users.c.id).limit(limit))]


async def list_memberships(tx: ReadTx, *, user_id: int) -> list[MemberRow]:
    """Return a person in each account that they belong to, the first account first."""
    query = _select().where(members.c.user_id == user_id).order_by(members.c.account_id)
    return [_member(row) for row in await tx.execute(query)]


async def list_all_memberships(
    tx: ReadTx, *, user_ids: Sequence[int]
) -> dict[int, list[MemberRow]]:
    """Return people in each account that they belong to, by user id."""
    query = _select().where(members.c.user_id.in_(user_ids)).order_by(members.c.account_id)
    found: dict[int, list[MemberRow]] = {}
    for row in await tx.execute(query):
        found.setdefault(row.user_id, []).append(_member(row))
    return found


async def lock_members(tx: WriteTx, *, account_id: int) -> dict[int, str]:
    """Keep the account's memberships from changing until commit; roles of the enabled ones by id.

    Who may sign in nowhere is not enabled here either. Without the lock two owners could each take
    the other's role, and none would be left.
    """
    query = (
        _select()
        .where(members.c.account_id == account_id)
        .order_by(members.c.user_id)
        .with_for_update(of=members)
    )
    rows = [_member(row) for row in await tx.execute(query)]
    return {row.user_id: row.role for row in rows if row.is_enabled}


async def count_members(tx: ReadTx, *, account_id: int) -> int:
    """Return how many members the account has."""
    query = select(func.count()).where(members.c.account_id == account_id)
    return int((await tx.execute(query)).scalar_one())


async def update_member(
    tx: WriteTx,
    *,
    account_id: int,
    user_id: int,
    role: str | None = None,
    is_enabled: bool | None = None,
    name: str | None = None,
) -> None:
    """Replace a member's role, whether the account lets them in, or its name for them."""
    given = {"role": role, "name": name}
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if is_enabled is not None:
        values["disabled_ms"] = None if is_enabled else tx.now_ms
    if values:
        await tx.execute(update(members).where(*_is(account_id, user_id)).values(**values))


async def delete_member(tx: WriteTx, *, account_id: int, user_id: int) -> None:
    """End a membership; the person stays, because usage and other accounts point at them."""
    await tx.execute(delete(members).where(*_is(account_id, user_id)))


async def leave_projects(tx: WriteTx, *, account_id: int, user_id: int) -> None:
    """End somebody's memberships of the account's projects."""
    await tx.execute(
        delete(project_members).where(
            project_members.c.account_id == account_id, project_members.c.user_id == user_id
        )
    )


async def list_key_ids(tx: ReadTx, *, account_id: int, user_id: int, kind: str) -> list[int]:
    """Return the ids of keys that act for somebody, those that are deleted left out."""
    query = select(keys.c.id).where(
        keys.c.account_id == account_id,
        keys.c.user_id == user_id,
        keys.c.kind == kind,
        keys.c.deleted_ms.is_(None),
    )
    return list((await tx.execute(query.order_by(keys.c.id))).scalars())


def _is(account_id: int, user_id: int) -> tuple[Any, ...]:
    return members.c.account_id == account_id, members.c.user_id == user_id


def _select() -> Select[*tuple[Any, ...]]:
    return select(
        members.c.user_id,
        members.c.account_id,
        users.c.email,
        func.coalesce(members.c.name, users.c.name).label("name"),
        members.c.role,
        members.c.created_ms,
        members.c.disabled_ms,
        users.c.disabled_ms.label("user_disabled_ms"),
    ).join_from(members, users, users.c.id == members.c.user_id)


def _member(row: Any) -> MemberRow:
    return MemberRow(
        user_id=row.user_id,
        account_id=row.account_id,
        email=row.email,
        name=row.name,
        role=row.role,
        created_ms=row.created_ms,
        is_enabled=row.disabled_ms is None and row.user_disabled_ms is None,
    )
