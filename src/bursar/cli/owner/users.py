"""`bursar users`: the people of an account, and those who are invited.

Owns what the commands take and show.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from bursar.cli.owner import options
from bursar.cli.owner.options import Yes
from bursar.cli.owner.shapes import shape, shapes
from bursar.cli.places.owner import Owner
from bursar.cli.session import MAX_ID

HELP: Final = "Invite, list, change and remove the people of an account."
_COLUMNS: Final = ("id", "email", "name", "role", "is_enabled", "created_at")
_INVITED: Final = ("id", "email", "role", "created_at", "expires_at")

UserId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The user's id.")]
InvitationId = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The invitation's id.")
]


class RoleName(StrEnum):
    """What somebody can be in an account."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


def list_users(owner: Owner) -> None:
    """List the people of the account, oldest first.

    \b
    bursar users list
    bursar users list --json | jq -r '.users[].email'
    """
    rows = shapes(owner.client.users.list())
    owner.out.show_list("users", rows, columns=_COLUMNS, empty="There are no users.")


def show(owner: Owner, user_id: UserId) -> None:
    """Show one of them.

    \b
    bursar users show 4
    """
    owner.out.show(shape(owner.client.users.get(user_id)))


def invite(
    owner: Owner,
    email: Annotated[str, typer.Argument(help="Whom: a letter is sent there.")],
    role: Annotated[RoleName, typer.Option(help="As what.")] = RoleName.MEMBER,
) -> None:
    """Invite somebody by mail. An earlier letter to the same address does not count any more.

    \b
    bursar users invite ada@example.com
    bursar users invite grace@example.com --role admin
    """
    made = owner.client.users.invite(email, role=role.value)
    owner.out.show(shape(made))


def update(
    owner: Owner,
    user_id: UserId,
    role: Annotated[RoleName | None, typer.Option(help="Another role.")] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Let them act here, or not.")
    ] = None,
) -> None:
    """Change what somebody may do in the account. It counts within seconds.

    \b
    bursar users update 4 --role viewer
    bursar users update 4 --disable
    """
    changes: dict[str, Any] = {}
    if role is not None:
        changes["role"] = role.value
    if enable is not None:
        changes["is_enabled"] = enable
    if not changes:
        raise typer.BadParameter("Say what to change.")
    owner.out.show(shape(owner.client.users.update(user_id, **changes)))


def remove(owner: Owner, user_id: UserId, yes: Yes = False) -> None:
    """Take somebody out of the account: their sessions and provisioning keys end at once.

    \b
    bursar users remove 4
    bursar users remove 4 --yes --json
    """
    options.confirm(f"Remove user {user_id} from the account?", yes=yes, out=owner.out)
    owner.client.users.remove(user_id)
    owner.out.show({"id": user_id, "is_removed": True})


def list_invitations(owner: Owner) -> None:
    """List the invitations that nobody has accepted yet.

    \b
    bursar users invitations
    """
    rows = shapes(owner.client.users.list_invitations())
    empty = "There are no open invitations."
    owner.out.show_list("invitations", rows, columns=_INVITED, empty=empty)


def withdraw(owner: Owner, invitation_id: InvitationId, yes: Yes = False) -> None:
    """Take an invitation back.

    \b
    bursar users withdraw 2
    bursar users withdraw 2 --yes --json
    """
    options.confirm(f"Take invitation {invitation_id} back?", yes=yes, out=owner.out)
    owner.client.users.withdraw_invitation(invitation_id)
    owner.out.show({"id": invitation_id, "is_withdrawn": True})


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("list", list_users, {}),
    ("show", show, {}),
    ("invite", invite, {}),
    ("update", update, {}),
    ("remove", remove, {}),
    ("invitations", list_invitations, {}),
    ("withdraw", withdraw, {}),
)
