"""Projects over HTTP, and who belongs to them.

Owns their shapes. Must not know rules; `service.projects` does.
"""

import re
from functools import partial
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.limits import allowances
from bursar.api.limits.allowances import LimitShape
from bursar.edge import pages
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import IdIn, Moment, format_moment, parse_path_id
from bursar.service import projects
from bursar.service.access import ProvisioningPrincipal
from bursar.service.keys import UNCHANGED
from bursar.service.limits import allowances as limits
from bursar.service.limits.allowances import Filter, Limit
from bursar.service.limits.rules import Scope
from bursar.service.projects import ProjectChange
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tenants.projects import MemberRow, ProjectRow

_POSITION: Final = re.compile(r"([1-9][0-9]{0,18})")


class ProjectShape(TypedDict):
    """A group of keys and users; `labels` go with each call of its keys."""

    id: int
    name: str
    description: str
    labels: dict[str, str]
    created_at: Moment


class ProjectViewShape(ProjectShape):
    """A project with its limits, each with what is used in its present window."""

    limits: list[LimitShape]


class ProjectListShape(TypedDict):
    """A page of projects, oldest first; `next_cursor` is null on the last one."""

    projects: list[ProjectShape]
    next_cursor: str | None


class MemberShape(TypedDict):
    """A user who belongs to a project."""

    user_id: int
    email: str
    name: str
    added_at: Moment


class MemberListShape(TypedDict):
    """The users who belong to a project."""

    members: list[MemberShape]


class NewProjectFields(Model):
    """A project to make."""

    name: str
    description: str | None = None
    labels: dict[str, str] | None = None


class ProjectFields(Model):
    """What to change of a project: absent leaves alone, and null takes its labels away."""

    name: str | None = None
    description: str | None = None
    labels: dict[str, str] | None = None


class MemberFields(Model):
    """Who shall belong to the project: a user of the account."""

    user_id: IdIn


async def list_projects(call: Call[ProvisioningPrincipal]) -> Response:
    """Your account's projects."""
    account_id, query = call.caller.account_id, call.query
    list_name = f"projects {account_id}"
    limit = query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    cursor = query.find("cursor")
    after_id = 0
    if cursor is not None:
        after_id = int(pages.read(cursor, list_name, form=_POSITION)[0])
    async with call.plane.database.read() as tx:
        rows = await projects.list_projects(
            tx, account_id=account_id, after_id=after_id, limit=limit + 1
        )
    page = rows[:limit]
    next_cursor = pages.write(list_name, page[-1].id) if len(rows) > limit else None
    return reply(ProjectListShape(projects=[_shape(row) for row in page], next_cursor=next_cursor))


async def create(call: Call[ProvisioningPrincipal]) -> Response:
    """Make a project."""
    new = check(NewProjectFields, call.document)

    async def effect(tx: WriteTx) -> ProjectShape:
        row = await projects.create(
            tx,
            account_id=call.caller.account_id,
            name=new.name,
            description=new.description or "",
            labels=new.labels,
        )
        return _shape(row)

    return await carry_out(call, effect, status=201)


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """One of your account's projects, with its limits."""
    account_id, project_id = call.caller.account_id, _project_id(call)
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        row = await projects.get(tx, account_id=account_id, project_id=project_id)
        found = await _limits(tx, row=row, now_ms=call.plane.now_ms())
    return reply(
        ProjectViewShape(**_shape(row), limits=[allowances.shape(limit) for limit in found])
    )


async def update(call: Call[ProvisioningPrincipal]) -> Response:
    """Rename, describe or label a project."""
    account_id, project_id = call.caller.account_id, _project_id(call)

    async def effect(tx: WriteTx) -> ProjectRow:
        # Asked for before the fields are read: an unknown project is 404 whatever is to be changed.
        await projects.get(tx, account_id=account_id, project_id=project_id)
        fields = check(ProjectFields, call.document)
        change = ProjectChange(
            name=fields.name,
            description=fields.description,
            labels=fields.labels if "labels" in fields.model_fields_set else UNCHANGED,
        )
        return await projects.update(
            tx, account_id=account_id, project_id=project_id, change=change
        )

    return reply(_shape(await call.plane.database.transact(effect)))


async def delete(call: Call[ProvisioningPrincipal]) -> Response:
    """Delete a project that has no keys. What it used stays in reports."""
    work = partial(projects.delete, account_id=call.caller.account_id, project_id=_project_id(call))
    await call.plane.database.transact(work)
    return Response(status_code=204)


async def list_members(call: Call[ProvisioningPrincipal]) -> Response:
    """The users who belong to a project."""
    async with call.plane.database.read() as tx:
        rows = await projects.list_members(
            tx, account_id=call.caller.account_id, project_id=_project_id(call)
        )
    return reply(MemberListShape(members=[_member(row) for row in rows]))


async def add_member(call: Call[ProvisioningPrincipal]) -> Response:
    """Have a user of your account belong to a project."""
    account_id, project_id = call.caller.account_id, _project_id(call)

    async def effect(tx: WriteTx) -> MemberListShape:
        await projects.get(tx, account_id=account_id, project_id=project_id)
        fields = check(MemberFields, call.document)
        await projects.add_member(
            tx,
            account_id=account_id,
            project_id=project_id,
            user_id=fields.user_id,
            by=call.caller,
        )
        rows = await projects.list_members(tx, account_id=account_id, project_id=project_id)
        return MemberListShape(members=[_member(row) for row in rows])

    return await carry_out(call, effect, status=200)


async def remove_member(call: Call[ProvisioningPrincipal]) -> Response:
    """End a user's membership of a project. Their keys in it stay."""
    work = partial(
        projects.remove_member,
        account_id=call.caller.account_id,
        project_id=_project_id(call),
        user_id=parse_path_id(call.path["user_id"]),
    )
    await call.plane.database.transact(work)
    return Response(status_code=204)


def _project_id(call: Call[ProvisioningPrincipal]) -> int:
    return parse_path_id(call.path["project_id"])


async def _limits(tx: ReadTx, *, row: ProjectRow, now_ms: int) -> list[Limit]:
    where = Filter(scope=Scope("project", row.id))
    return await limits.list_limits(tx, account_id=row.account_id, now_ms=now_ms, where=where)


def _shape(row: ProjectRow) -> ProjectShape:
    return ProjectShape(
        id=row.id,
        name=row.name,
        description=row.description,
        labels=dict(row.labels),
        created_at=format_moment(row.created_ms - row.created_ms % 1000),
    )


def _member(row: MemberRow) -> MemberShape:
    return MemberShape(
        user_id=row.user_id,
        email=row.email,
        name=row.name,
        added_at=format_moment(row.created_ms),
    )
