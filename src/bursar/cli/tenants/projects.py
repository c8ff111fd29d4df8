"""`bursar projects`: groups of an account's keys and users.

Owns what the commands take and show. Must not know rules; `service.projects` does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.session import MAX_ID, Session
from bursar.cli.tenants import key_options
from bursar.cli.tenants.key_options import AccountOption, Description, Labels

if TYPE_CHECKING:
    from bursar.store.database import Database, WriteTx
    from bursar.store.tenants.projects import MemberRow, ProjectRow

HELP: Final = "Make, list, change and delete projects, and say who belongs to them."
_COLUMNS: Final = ("id", "name", "description", "labels", "created_at")
_MEMBER_COLUMNS: Final = ("user_id", "email", "name", "added_at")

ProjectId = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The project's id.")
]
UserId = Annotated[int, typer.Argument(metavar="USER", min=1, max=MAX_ID, help="The user's id.")]


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What the project is called.")],
    account: AccountOption = 1,
    description: Description = None,
    label: Labels = None,
) -> None:
    """Make a project. Its labels go with every call of its keys.

    \b
    bursar projects create Search --label team=search
    bursar limits set project:1 cost month --limit 100.00
    """

    async def work(tx: "WriteTx") -> "ProjectRow":
        from bursar.service import accounts, projects

        await accounts.get(tx, account_id=account)
        return await projects.create(
            tx, account_id=account, name=name, description=description or "", labels=labels
        )

    labels = key_options.parse_labels(label)
    session.out.show(_shape(session.change(work)))


def list_projects(session: Session, account: AccountOption = 1) -> None:
    """List an account's projects, oldest first.

    \b
    bursar projects list --json
    """

    async def work(database: "Database") -> list["ProjectRow"]:
        from bursar.service import accounts, projects

        async with database.read() as tx:
            await accounts.get(tx, account_id=account)
            return await projects.list_projects(tx, account_id=account)

    rows = [_shape(row) for row in session.run(work)]
    session.out.show_list("projects", rows, columns=_COLUMNS, empty="There are no projects.")


def update(
    session: Session,
    project_id: ProjectId,
    account: AccountOption = 1,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    description: Description = None,
    label: Labels = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Take its labels away.")] = False,
) -> None:
    """Change a project. What is not named stays; labels that are named replace those before.

    \b
    bursar projects update 1 --name Discovery --label team=search --label tier=1
    """
    if no_labels and label:
        raise typer.BadParameter("Labels are either set or taken away.")
    if name is None and description is None and not label and not no_labels:
        raise typer.BadParameter("Say what to change.")

    async def work(tx: "WriteTx") -> "ProjectRow":
        from bursar.service import projects
        from bursar.service.keys import UNCHANGED
        from bursar.service.projects import ProjectChange

        change = ProjectChange(
            name=name,
            description=description,
            labels=labels if label or no_labels else UNCHANGED,
        )
        return await projects.update(tx, account_id=account, project_id=project_id, change=change)

    labels = key_options.parse_labels(label)
    session.out.show(_shape(session.change(work)))


def delete(session: Session, project_id: ProjectId, account: AccountOption = 1) -> None:
    """Delete a project that has no keys. What it used stays in reports.

    \b
    bursar projects delete 1
    """

    async def work(tx: "WriteTx") -> None:
        from bursar.service import projects

        await projects.delete(tx, account_id=account, project_id=project_id)

    session.change(work)
    session.out.show({"id": project_id, "is_deleted": True})


def list_members(session: Session, project_id: ProjectId, account: AccountOption = 1) -> None:
    """List the users who belong to a project.

    \b
    bursar projects members 1
    """

    async def work(database: "Database") -> list["MemberRow"]:
        from bursar.service import projects

        async with database.read() as tx:
            return await projects.list_members(tx, account_id=account, project_id=project_id)

    _show_members(session, session.run(work))


def add_member(
    session: Session, project_id: ProjectId, user_id: UserId, account: AccountOption = 1
) -> None:
    """Have a user of the account belong to a project.

    \b
    bursar projects add-member 1 4
    """

    async def work(tx: "WriteTx") -> list["MemberRow"]:
        from bursar.service import projects

        await projects.add_member(tx, account_id=account, project_id=project_id, user_id=user_id)
        return await projects.list_members(tx, account_id=account, project_id=project_id)

    _show_members(session, session.change(work))


def remove_member(
    session: Session, project_id: ProjectId, user_id: UserId, account: AccountOption = 1
) -> None:
    """End a user's membership of a project. Their keys in it stay.

    \b
    bursar projects remove-member 1 4
    """

    async def work(tx: "WriteTx") -> list["MemberRow"]:
        from bursar.service import projects

        await projects.remove_member(tx, account_id=account, project_id=project_id, user_id=user_id)
        return await projects.list_members(tx, account_id=account, project_id=project_id)

    _show_members(session, session.change(work))


def _show_members(session: Session, rows: list["MemberRow"]) -> None:
    shown = [
        {
            "user_id": row.user_id,
            "email": row.email,
            "name": row.name,
            "added_at": output.format_moment(row.created_ms),
        }
        for row in rows
    ]
    empty = "Nobody belongs to the project."
    session.out.show_list("members", shown, columns=_MEMBER_COLUMNS, empty=empty)


def _shape(row: "ProjectRow") -> dict[str, Any]:
    return {
        "id": row.id,
        "account_id": row.account_id,
        "name": row.name,
        "description": row.description,
        "labels": dict(row.labels),
        "created_at": output.format_moment(row.created_ms),
    }


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("create", create, {}),
    ("list", list_projects, {}),
    ("update", update, {}),
    ("delete", delete, {}),
    ("members", list_members, {}),
    ("add-member", add_member, {}),
    ("remove-member", remove_member, {}),
)
