"""Projects: groups of keys and of the users who belong to them."""

from collections.abc import Mapping
from typing import Final

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.limits import Limit
from bursar.sdk.results import Listing, Moment, Result
from bursar.sdk.values import UNSET, Unset

_PROJECTS = "/v1/account/projects"


class Project(Result):
    """A group of keys and users; `labels` go with each call of its keys."""

    id: int
    name: str
    description: str
    labels: dict[str, str]
    created_at: Moment


class ProjectView(Project):
    """A project with its limits, each with what is used in its present window."""

    limits: tuple[Limit, ...]


class ProjectMember(Result):
    """A user who belongs to a project."""

    user_id: int
    email: str
    name: str
    added_at: Moment


def _list(*, page_size: int | None = None) -> Call[Page[Project]]:
    """Your account's projects, oldest first."""
    return Call("GET", _PROJECTS, results.read_page(Project, "projects"), {"limit": page_size})


def _create(
    name: str,
    *,
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Call[Project]:
    """Make a project."""
    return Call(
        "POST",
        _PROJECTS,
        results.read(Project),
        body=values.some(name=name, description=description, labels=labels),
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _get(project_id: int) -> Call[ProjectView]:
    """One project, with its limits; raises NotFound."""
    return Call("GET", values.path(_PROJECTS, project_id), results.read(ProjectView))


def _update(
    project_id: int,
    *,
    name: str | Unset = UNSET,
    description: str | Unset = UNSET,
    labels: Mapping[str, str] | Unset | None = UNSET,
) -> Call[Project]:
    """Rename, describe or label a project: what is not given stays, None takes its labels away."""
    body = values.given(name=name, description=description, labels=labels)
    return Call("PATCH", values.path(_PROJECTS, project_id), results.read(Project), body=body)


def _delete(project_id: int) -> Call[None]:
    """Delete a project that has no keys; raises Conflict otherwise. Reports keep what it used."""
    return Call("DELETE", values.path(_PROJECTS, project_id), nothing)


def _list_members(project_id: int) -> Call[Listing[ProjectMember]]:
    """The users who belong to a project."""
    return Call("GET", _members(project_id), results.read_list(ProjectMember, "members"))


def _add_member(
    project_id: int, *, user_id: int, idempotency_key: str | None = None
) -> Call[Listing[ProjectMember]]:
    """Have a user of your account belong to a project; answers with all who do."""
    return Call(
        "POST",
        _members(project_id),
        results.read_list(ProjectMember, "members"),
        body={"user_id": user_id},
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _remove_member(project_id: int, *, user_id: int) -> Call[None]:
    """End a user's membership of a project. Their keys in it stay."""
    return Call("DELETE", values.path(_members(project_id), user_id), nothing)


def _members(project_id: int) -> str:
    return f"{values.path(_PROJECTS, project_id)}/members"


class Projects(Resource):
    """Projects."""

    list: Final = sync_pages(_list)
    create: Final = sync(_create)
    get: Final = sync(_get)
    update: Final = sync(_update)
    delete: Final = sync(_delete)
    list_members: Final = sync(_list_members)
    add_member: Final = sync(_add_member)
    remove_member: Final = sync(_remove_member)


class AsyncProjects(AsyncResource):
    """Projects."""

    list: Final = awaited_pages(_list)
    create: Final = awaited(_create)
    get: Final = awaited(_get)
    update: Final = awaited(_update)
    delete: Final = awaited(_delete)
    list_members: Final = awaited(_list_members)
    add_member: Final = awaited(_add_member)
    remove_member: Final = awaited(_remove_member)
