"""`bursar projects`: groups of an account's keys and users.

Owns what the commands take and show.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli.owner import options
from bursar.cli.owner.options import Description, Labels, Yes
from bursar.cli.owner.shapes import shape, shapes
from bursar.cli.places.owner import Owner
from bursar.cli.session import MAX_ID

if TYPE_CHECKING:
    from bursar.sdk.resources.projects import ProjectMember

HELP: Final = "Make, list, change and delete projects, and say who belongs to them."
_COLUMNS: Final = ("id", "name", "description", "labels", "created_at")
_MEMBER_COLUMNS: Final = ("user_id", "email", "name", "added_at")
_LIMIT_COLUMNS: Final = ("resource", "window", "model", "limit", "used", "left", "resets_at")

ProjectId = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The project's id.")
]
UserId = Annotated[int, typer.Argument(metavar="USER", min=1, max=MAX_ID, help="The user's id.")]


def create(
    owner: Owner,
    name: Annotated[str, typer.Argument(help="What the project is called.")],
    description: Description = None,
    label: Labels = None,
) -> None:
    """Make a project. Its labels go with every call of its keys.

    \b
    bursar projects create Search --label team=search
    bursar limits set project:1 cost month --limit 100.00
    """
    labels = options.parse_labels(label)
    made = owner.client.projects.create(name, description=description, labels=labels)
    owner.out.show(shape(made))


def list_projects(owner: Owner) -> None:
    """List the projects, oldest first.

    \b
    bursar projects list --json
    """
    rows = shapes(owner.client.projects.list())
    owner.out.show_list("projects", rows, columns=_COLUMNS, empty="There are no projects.")


def show(owner: Owner, project_id: ProjectId) -> None:
    """Show one project and its limits.

    \b
    bursar projects show 1
    """
    shown = shape(owner.client.projects.get(project_id))
    if owner.out.is_json:
        owner.out.show(shown)
        return
    limits = shown.pop("limits")
    owner.out.show(shown)
    owner.out.show_list("limits", limits, columns=_LIMIT_COLUMNS, empty="It has no limits.")


def update(
    owner: Owner,
    project_id: ProjectId,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    description: Description = None,
    label: Labels = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Take its labels away.")] = False,
) -> None:
    """Change a project. What is not named stays; labels that are named replace those before.

    \b
    bursar projects update 1 --name Discovery --label team=search --label tier=1
    """
    labels = options.parse_labels(label) or None
    changes = options.changes(
        {"name": name, "description": description, "labels": labels}, lift={"labels": no_labels}
    )
    if not changes:
        raise typer.BadParameter("Say what to change.")
    owner.out.show(shape(owner.client.projects.update(project_id, **changes)))


def delete(owner: Owner, project_id: ProjectId, yes: Yes = False) -> None:
    """Delete a project that has no keys. What it used stays in reports.

    \b
    bursar projects delete 1
    bursar projects delete 1 --yes --json
    """
    options.confirm(f"Delete project {project_id} for good?", yes=yes, out=owner.out)
    owner.client.projects.delete(project_id)
    owner.out.show({"id": project_id, "is_deleted": True})


def list_members(owner: Owner, project_id: ProjectId) -> None:
    """List the users who belong to a project.

    \b
    bursar projects members 1
    """
    _show_members(owner, owner.client.projects.list_members(project_id))


def add_member(owner: Owner, project_id: ProjectId, user_id: UserId) -> None:
    """Have a user of the account belong to a project.

    \b
    bursar projects add-member 1 4
    """
    _show_members(owner, owner.client.projects.add_member(project_id, user_id=user_id))


def remove_member(owner: Owner, project_id: ProjectId, user_id: UserId, yes: Yes = False) -> None:
    """End a user's membership of a project. Their keys in it stay.

    \b
    bursar projects remove-member 1 4
    bursar projects remove-member 1 4 --yes --json
    """
    question = f"Take user {user_id} out of project {project_id}?"
    options.confirm(question, yes=yes, out=owner.out)
    owner.client.projects.remove_member(project_id, user_id=user_id)
    _show_members(owner, owner.client.projects.list_members(project_id))


def _show_members(owner: Owner, found: "Iterable[ProjectMember]") -> None:
    owner.out.show_list(
        "members", shapes(found), columns=_MEMBER_COLUMNS, empty="Nobody belongs to the project."
    )


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("create", create, {}),
    ("list", list_projects, {}),
    ("show", show, {}),
    ("update", update, {}),
    ("delete", delete, {}),
    ("members", list_members, {}),
    ("add-member", add_member, {}),
    ("remove-member", remove_member, {}),
)
