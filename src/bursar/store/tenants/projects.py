"""Projects: groups of an account's keys and users.

Owns the tables `projects` and `project_members`. Must not know budgets (they are allowances of the
scope `project:ID`), nor who may do what. A deleted project keeps its row, because usage points at
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from sqlalchemy import Select, delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from bursar.store import counters
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.keys import decode_labels
from bursar.store.tables import project_members, projects, users


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """A project; its labels go with every call of its keys."""

    id: int
    account_id: int
    name: str
    description: str
    labels: Mapping[str, str]
    created_ms: int


class ProjectValues(TypedDict, total=False):
    """Columns of a project that people set."""

    name: str
    description: str
    labels: str | None


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A user who belongs to a project."""

    user_id: int
    email: str
    name: str
    created_ms: int


async def insert_project(tx: WriteTx, *, account_id: int, values: ProjectValues) -> int:
    """Store a project and return its id."""
    project_id = await counters.advance(tx, name="projects")
    await tx.execute(
        insert(projects).values(
            account_id=account_id, id=project_id, created_ms=tx.now_ms, **values
        )
    )
    return project_id


async def find_project(tx: ReadTx, *, account_id: int, project_id: int) -> ProjectRow | None:
    """Return the account's project; None for a deleted, unknown or foreign one."""
    query = _select(account_id).where(projects.c.id == project_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _project(dict(row._mapping))


async def list_projects(
    tx: ReadTx, *, account_id: int, after_id: int, limit: int
) -> list[ProjectRow]:
    """Return the account's projects with ids above `after_id`, oldest first."""
    query = _select(account_id).where(projects.c.id > after_id)
    rows = await tx.execute(query.order_by(projects.c.id).limit(limit))
    return [_project(dict(row._mapping)) for row in rows]


async def count_projects(tx: ReadTx, *, account_id: int) -> int:
    """Return how many projects the account has, deleted ones not counted."""
    query = select(func.count()).where(
        projects.c.account_id == account_id, projects.c.deleted_ms.is_(None)
    )
    return int((await tx.execute(query)).scalar_one())


async def list_names(tx: ReadTx, *, account_id: int) -> dict[int, str]:
    """Return the names of all projects that the account ever had, by id, for reports."""
    query = select(projects.c.id, projects.c.name).where(projects.c.account_id == account_id)
    return {row.id: row.name for row in await tx.execute(query)}


async def lock_project(tx: WriteTx, *, account_id: int, project_id: int) -> bool:
    """Keep a project from being deleted until commit; False: there is none.

    On SQLite nobody else writes meanwhile anyway.
    """
    query = _select(account_id).where(projects.c.id == project_id).with_for_update(read=True)
    return (await tx.execute(query)).first() is not None


async def update_project(
    tx: WriteTx, *, account_id: int, project_id: int, values: ProjectValues
) -> bool:
    """Replace the given columns of a project; False when it is not there."""
    statement = update(projects).where(*_is(account_id, project_id)).values(**values)
    return (await tx.execute(statement)).rowcount == 1


async def delete_project(tx: WriteTx, *, account_id: int, project_id: int) -> bool:
    """Mark a project deleted for good, and let its members go; False when it is not there."""
    statement = update(projects).where(*_is(account_id, project_id)).values(deleted_ms=tx.now_ms)
    if (await tx.execute(statement)).rowcount != 1:
        return False
    await tx.execute(
        delete(project_members).where(
            project_members.c.account_id == account_id, project_members.c.project_id == project_id
        )
    )
    return True


async def insert_member(tx: WriteTx, *, account_id: int, project_id: int, user_id: int) -> bool:
    """Make a user a member of the project; False when they are one already."""
    insertion: Any = postgresql.insert if tx.dialect == POSTGRESQL else sqlite.insert
    statement = (
        insertion(project_members)
        .values(account_id=account_id, project_id=project_id, user_id=user_id, created_ms=tx.now_ms)
        .on_conflict_do_nothing()
    )
    return (await tx.execute(statement)).rowcount == 1


async def delete_member(tx: WriteTx, *, account_id: int, project_id: int, user_id: int) -> bool:
    """End a user's membership of the project; False when they were no member."""
    statement = delete(project_members).where(
        project_members.c.account_id == account_id,
        project_members.c.project_id == project_id,
        project_members.c.user_id == user_id,
    )
    return (await tx.execute(statement)).rowcount == 1


async def list_members(tx: ReadTx, *, account_id: int, project_id: int) -> list[MemberRow]:
    """Return the project's members, by user id."""
    query = (
        select(
            users.c.id.label("user_id"), users.c.email, users.c.name, project_members.c.created_ms
        )
        .join_from(project_members, users, users.c.id == project_members.c.user_id)
        .where(
            project_members.c.account_id == account_id, project_members.c.project_id == project_id
        )
        .order_by(users.c.id)
    )
    return [MemberRow(**row._mapping) for row in await tx.execute(query)]


async def is_member(tx: ReadTx, *, account_id: int, project_id: int, user_id: int) -> bool:
    """Whether the user belongs to the project."""
    query = select(
        exists().where(
            project_members.c.account_id == account_id,
            project_members.c.project_id == project_id,
            project_members.c.user_id == user_id,
        )
    )
    return bool((await tx.execute(query)).scalar_one())


def _is(account_id: int, project_id: int) -> tuple[Any, ...]:
    return (
        projects.c.account_id == account_id,
        projects.c.id == project_id,
        projects.c.deleted_ms.is_(None),
    )


def _select(account_id: int) -> Select[*tuple[Any, ...]]:
    columns = [projects.c[name] for name in ProjectRow.__dataclass_fields__]
    return select(*columns).where(
        projects.c.account_id == account_id, projects.c.deleted_ms.is_(None)
    )


def _project(row: Mapping[str, Any]) -> ProjectRow:
    return ProjectRow(**{**row, "labels": decode_labels(row["labels"])})
