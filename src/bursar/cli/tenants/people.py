"""`bursar people`: everybody who has a user on this installation.

Owns what the commands take and show. Must not know rules; `service.tenants.people` does. The people
of one account are `bursar users --account ID`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.owner import options
from bursar.cli.owner.options import Yes
from bursar.cli.session import MAX_ID, Session

if TYPE_CHECKING:
    from bursar.service.tenants.people import Person
    from bursar.store.database import Database, WriteTx

HELP: Final = "List everybody, whatever their accounts; let somebody in nowhere, or sign them out."
_COLUMNS: Final = ("id", "email", "name", "is_enabled", "accounts", "created_at")
_PAGE: Final = 1_000

UserId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The user's id.")]


def list_people(
    session: Session,
    email: Annotated[str | None, typer.Option(help="Only who has this address.")] = None,
) -> None:
    """List everybody, oldest first. Who is in one account: `bursar users list --account ID`.

    \b
    bursar people list
    bursar people list --email ada@example.com --json
    """

    async def work(database: "Database") -> list["Person"]:
        from bursar.service.tenants import people

        found: list[Person] = []
        async with database.read() as tx:
            while True:
                after_id = found[-1].row.id if found else 0
                page = await people.list_people(tx, after_id=after_id, limit=_PAGE, email=email)
                found += page
                if len(page) < _PAGE:
                    return found

    rows = [shape(each) for each in session.run(work)]
    shown = [{**row, "accounts": len(row["memberships"])} for row in rows]
    listed = rows if session.out.is_json else shown
    session.out.show_list("users", listed, columns=_COLUMNS, empty="There is nobody.")


def show(session: Session, user_id: UserId) -> None:
    """Show somebody, and what they are in each of their accounts.

    \b
    bursar people show 4
    """

    async def work(database: "Database") -> "Person":
        from bursar.service.tenants import people

        async with database.read() as tx:
            return await people.get(tx, user_id=user_id)

    session.out.show(shape(session.run(work)))


def disable(session: Session, user_id: UserId, yes: Yes = False) -> None:
    """Let somebody in nowhere any more: their sessions end, and keys that act for them stop.

    \b
    bursar people disable 4
    bursar people disable 4 --yes --json
    """
    options.confirm(f"Let user {user_id} in nowhere any more?", yes=yes, out=session.out)
    session.out.show(shape(_set_enabled(session, user_id, is_enabled=False)))


def enable(session: Session, user_id: UserId) -> None:
    """Let somebody in again, wherever they belong.

    \b
    bursar people enable 4
    """
    session.out.show(shape(_set_enabled(session, user_id, is_enabled=True)))


def sign_out(session: Session, user_id: UserId, yes: Yes = False) -> None:
    """End every session of somebody, in every account. They may sign in again.

    \b
    bursar people sign-out 4
    bursar people sign-out 4 --yes --json
    """
    options.confirm(f"End every session of user {user_id}?", yes=yes, out=session.out)

    async def work(tx: "WriteTx") -> int:
        from bursar.service.tenants import people

        return await people.sign_out(tx, user_id=user_id)

    session.out.show({"id": user_id, "ended": session.change(work)})


def shape(person: "Person") -> dict[str, Any]:
    """Somebody as they are shown."""
    row = person.row
    return {
        "id": row.id,
        "email": row.email,
        "name": row.name,
        "is_enabled": person.is_enabled,
        "created_at": output.format_moment(row.created_ms),
        "memberships": [
            {"account_id": each.account_id, "role": each.role, "is_enabled": each.is_enabled}
            for each in person.memberships
        ],
    }


def _set_enabled(session: Session, user_id: int, *, is_enabled: bool) -> "Person":
    async def work(tx: "WriteTx") -> "Person":
        from bursar.service.tenants import people

        return await people.set_enabled(tx, user_id=user_id, is_enabled=is_enabled)

    return session.change(work)


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("list", list_people, {}),
    ("show", show, {}),
    ("disable", disable, {}),
    ("enable", enable, {}),
    ("sign-out", sign_out, {}),
)
