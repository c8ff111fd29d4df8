"""Projects: groups of an account's keys and users, with labels and budgets of their own.

Owns the rules of names, labels and membership. A project's budgets are limits of its scope, set as
any other limit (`limits`). Every change that calls can notice is announced to the workers. Must not
know what a key may do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from bursar.core import permissions, text
from bursar.core.audit.events import AuditAction, Values
from bursar.core.errors import Conflict, NotFound
from bursar.core.secrets import KeyKind
from bursar.service import grants
from bursar.service.access import Principal
from bursar.service.audit import notes
from bursar.service.keys.fields import UNCHANGED, Unchanged, clean_description
from bursar.store import changes, keys
from bursar.store.database import ReadTx, WriteTx
from bursar.store.limits import allowances
from bursar.store.tenants import projects, users
from bursar.store.tenants.projects import MemberRow, ProjectRow, ProjectValues

MAX_PROJECTS: Final = 1_000
MAX_MEMBERS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectChange:
    """What to change of a project: None leaves a text alone, and takes labels away."""

    name: str | None = None
    description: str | None = None
    labels: Mapping[str, str] | Unchanged | None = UNCHANGED


async def create(
    tx: WriteTx,
    *,
    account_id: int,
    name: str,
    description: str = "",
    labels: Mapping[str, str] | None = None,
) -> ProjectRow:
    """Make a project of an existing account.

    Raises Invalid for the field at fault, and Conflict (`too_many_projects`).
    """
    values = ProjectValues(
        name=text.clean_name(name),
        description=clean_description(description),
        labels=_encode(labels),
    )
    if await projects.count_projects(tx, account_id=account_id) >= MAX_PROJECTS:
        message = f"An account may have at most {MAX_PROJECTS} projects."
        raise Conflict("too_many_projects", message)
    project_id = await projects.insert_project(tx, account_id=account_id, values=values)
    made = await get(tx, account_id=account_id, project_id=project_id)
    _note(tx, AuditAction.PROJECT_CREATE, made, after=notes.of_project(made))
    return made


async def get(tx: ReadTx, *, account_id: int, project_id: int) -> ProjectRow:
    """Return one of the account's projects; raises NotFound."""
    row = await projects.find_project(tx, account_id=account_id, project_id=project_id)
    if row is None:
        raise _not_found()
    return row


async def list_projects(
    tx: ReadTx, *, account_id: int, after_id: int = 0, limit: int = MAX_PROJECTS
) -> list[ProjectRow]:
    """Return the account's projects with ids above `after_id`, oldest first."""
    return await projects.list_projects(tx, account_id=account_id, after_id=after_id, limit=limit)


async def update(
    tx: WriteTx, *, account_id: int, project_id: int, change: ProjectChange
) -> ProjectRow:
    """Change a project and return it as it is then; raises NotFound and Invalid.

    Its labels go with the calls of its keys within a second.
    """
    before = await get(tx, account_id=account_id, project_id=project_id)
    found: dict[str, Any] = {}
    if change.name is not None:
        found["name"] = text.clean_name(change.name)
    if change.description is not None:
        found["description"] = clean_description(change.description)
    if not isinstance(change.labels, Unchanged):
        found["labels"] = _encode(change.labels)
    if found:
        values = cast("ProjectValues", found)
        if not await projects.update_project(
            tx, account_id=account_id, project_id=project_id, values=values
        ):
            raise _not_found()
        if "labels" in found:
            # Any key of the account may be one of the project's.
            tx.announce(changes.ACCOUNT, account_id=account_id)
    after = await get(tx, account_id=account_id, project_id=project_id)
    action = AuditAction.PROJECT_UPDATE
    _note(tx, action, after, before=notes.of_project(before), after=notes.of_project(after))
    return after


async def delete(tx: WriteTx, *, account_id: int, project_id: int) -> None:
    """Delete a project that has no keys, for good; its usage stays in reports.

    Raises NotFound, and Conflict (`project_has_keys`).
    """
    before = await get(tx, account_id=account_id, project_id=project_id)
    # Its row first: who puts a key into it waits for this, and then finds it gone.
    if not await projects.delete_project(tx, account_id=account_id, project_id=project_id):
        raise _not_found()
    for kind in KeyKind:
        if await keys.count_keys(tx, account_id=account_id, kind=kind, project_id=project_id):
            message = "Keys belong to the project. Move or delete them first."
            raise Conflict("project_has_keys", message)
    _note(tx, AuditAction.PROJECT_DELETE, before, before=notes.of_project(before))
    scope = f"project:{project_id}"
    for row in await allowances.list_of_scope(tx, account_id=account_id, scope=scope):
        tx.announce(changes.ALLOWANCE, account_id=account_id, subject=row.ref.name)


async def list_members(tx: ReadTx, *, account_id: int, project_id: int) -> list[MemberRow]:
    """Return the users who belong to the project; raises NotFound."""
    await get(tx, account_id=account_id, project_id=project_id)
    return await projects.list_members(tx, account_id=account_id, project_id=project_id)


async def add_member(
    tx: WriteTx, *, account_id: int, project_id: int, user_id: int, by: Principal | None = None
) -> None:
    """Have a user of the account belong to the project; they may already.

    Raises NotFound for the project or the user, Forbidden (`exceeds_own_rights`) for a caller who
    may act for nobody else, and Conflict (`too_many_members`).
    """
    if not await projects.lock_project(tx, account_id=account_id, project_id=project_id):
        raise _not_found()
    project = await get(tx, account_id=account_id, project_id=project_id)
    if await users.find_role(tx, account_id=account_id, user_id=user_id) is None:
        raise _not_found("user_id")
    if not await grants.is_trusted(tx, account_id=account_id, by=by):
        raise grants.exceeds("user_id")
    members = await projects.list_members(tx, account_id=account_id, project_id=project_id)
    if len(members) >= MAX_MEMBERS:
        message = f"A project may have at most {MAX_MEMBERS} members."
        raise Conflict("too_many_members", message)
    await projects.insert_member(tx, account_id=account_id, project_id=project_id, user_id=user_id)
    if user_id not in {member.user_id for member in members}:
        _note(tx, AuditAction.PROJECT_ADD_MEMBER, project, after={"user_id": user_id})


async def remove_member(tx: WriteTx, *, account_id: int, project_id: int, user_id: int) -> None:
    """End a user's membership of the project; raises NotFound. Their keys in it stay."""
    project = await get(tx, account_id=account_id, project_id=project_id)
    if not await projects.delete_member(
        tx, account_id=account_id, project_id=project_id, user_id=user_id
    ):
        raise _not_found()
    _note(tx, AuditAction.PROJECT_REMOVE_MEMBER, project, before={"user_id": user_id})


def _note(
    tx: WriteTx,
    action: AuditAction,
    row: ProjectRow,
    *,
    before: Values | None = None,
    after: Values | None = None,
) -> None:
    account_id, target = row.account_id, f"project:{row.id}"
    notes.note(tx, account_id=account_id, action=action, target=target, before=before, after=after)


def _encode(labels: Mapping[str, str] | None) -> str | None:
    return permissions.encode_labels(permissions.clean_labels(labels)) if labels else None


def _not_found(param: str | None = None) -> NotFound:
    return NotFound("not_found", "There is nothing here, or it is not yours.", param=param)
