"""The users of an account on the wire, yourself among them, and invitations.

Owns their shapes. Must not know rules; `service.people` does.
"""

import re
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.edge import pages
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import Moment, format_moment, parse_path_id
from bursar.service.access import ProvisioningPrincipal
from bursar.service.people import invitations, members
from bursar.service.people.invitations import Invited
from bursar.store.database import WriteTx
from bursar.store.people.letters import InvitationRow
from bursar.store.people.members import MemberRow

_LIST: Final = "users"
_POSITION: Final = re.compile(r"([0-9]{1,18})")


class UserShape(TypedDict):
    """A person in an account; one who is not enabled cannot act in it."""

    id: int
    email: str
    name: str
    role: str
    is_enabled: bool
    created_at: Moment


class UserListShape(TypedDict):
    """A page of users; `next_cursor` is null on the last one."""

    users: list[UserShape]
    next_cursor: str | None


class InvitationShape(TypedDict):
    """Somebody who may join the account; the letter has what they need."""

    id: int
    email: str
    name: str
    role: str
    created_at: Moment
    expires_at: Moment


class InvitationListShape(TypedDict):
    """The open invitations, oldest first."""

    invitations: list[InvitationShape]


class InvitationFields(Model):
    """Whom to invite, and as what: `owner`, `admin`, `member` or `viewer`.

    `name` is what a new person is called if they do not say otherwise.
    """

    email: str
    role: str = "member"
    name: str | None = None


class UserFields(Model):
    """What to change of a user: absent and null leave alone.

    `name` is what this account calls them, until they give themselves another name.
    """

    role: str | None = None
    is_enabled: bool | None = None
    name: str | None = None


class OwnFields(Model):
    """What to change of yourself."""

    name: str


async def list_users(call: Call[ProvisioningPrincipal]) -> Response:
    """The users of your account, oldest first."""
    cursor = call.query.find("cursor")
    limit = call.query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    after_id = 0 if cursor is None else int(pages.read(cursor, _LIST, form=_POSITION)[0])
    async with call.plane.database.read() as tx:
        found = await members.list_members(
            tx, account_id=call.caller.account_id, after_id=after_id, limit=limit + 1
        )
    page = found[:limit]
    is_last = len(found) <= limit
    return reply(
        UserListShape(
            users=[shape(row) for row in page],
            next_cursor=None if is_last else pages.write(_LIST, page[-1].user_id),
        )
    )


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """One user of your account."""
    user_id = parse_path_id(call.path["user_id"])
    async with call.plane.database.read() as tx:
        row = await members.get(tx, account_id=call.caller.account_id, user_id=user_id)
    return reply(shape(row))


async def show_self(call: Call[ProvisioningPrincipal]) -> Response:
    """You, in this account."""
    async with call.plane.database.read() as tx:
        return reply(shape(await members.get_self(tx, by=call.caller)))


async def update_self(call: Call[ProvisioningPrincipal]) -> Response:
    """Change your name."""
    given = check(OwnFields, call.document)

    async def work(tx: WriteTx) -> MemberRow:
        return await members.rename(tx, by=call.caller, name=given.name)

    return reply(shape(await call.plane.database.unbound().transact(work)))


async def leave(call: Call[ProvisioningPrincipal]) -> Response:
    """Leave the account."""

    async def work(tx: WriteTx) -> None:
        await members.leave(tx, by=call.caller)

    await call.plane.database.transact(work)
    return Response(status_code=204)


async def update(call: Call[ProvisioningPrincipal]) -> Response:
    """Change a user's role or name here, or let them in or not."""
    user_id = parse_path_id(call.path["user_id"])

    async def work(tx: WriteTx) -> MemberRow:
        # Asked for before the fields are read: an unknown user is 404 whatever is to be changed.
        await members.get(tx, account_id=call.caller.account_id, user_id=user_id)
        fields = check(UserFields, call.document)
        return await members.update(
            tx,
            by=call.caller,
            user_id=user_id,
            role=fields.role,
            is_enabled=fields.is_enabled,
            name=fields.name,
        )

    return reply(shape(await call.plane.database.transact(work)))


async def remove(call: Call[ProvisioningPrincipal]) -> Response:
    """Take a user out of the account; their sessions and provisioning keys end."""
    user_id = parse_path_id(call.path["user_id"])

    async def work(tx: WriteTx) -> None:
        await members.remove(tx, by=call.caller, user_id=user_id)

    await call.plane.database.transact(work)
    return Response(status_code=204)


async def invite(call: Call[ProvisioningPrincipal]) -> Response:
    """Invite somebody by mail."""
    given = check(InvitationFields, call.document)
    people = call.plane.people
    made: list[Invited] = []

    async def effect(tx: WriteTx) -> InvitationShape:
        invited = await invitations.invite(
            tx, people=people, by=call.caller, email=given.email, role=given.role, name=given.name
        )
        # Whoever is asked to do it again has undone the first: only the last letter counts.
        made[:] = [invited]
        return _invitation(invited.row)

    response = await carry_out(call, effect, status=202)
    for each in made:
        people.send(each.letter)
    return response


async def list_invitations(call: Call[ProvisioningPrincipal]) -> Response:
    """The open invitations of your account."""
    async with call.plane.database.read() as tx:
        found = await invitations.list_open(
            tx, account_id=call.caller.account_id, now_ms=call.plane.now_ms()
        )
    return reply(InvitationListShape(invitations=[_invitation(row) for row in found]))


async def withdraw(call: Call[ProvisioningPrincipal]) -> Response:
    """Take an invitation back."""
    invitation_id = parse_path_id(call.path["invitation_id"])

    async def work(tx: WriteTx) -> None:
        await invitations.withdraw(tx, by=call.caller, invitation_id=invitation_id)

    await call.plane.database.transact(work)
    return Response(status_code=204)


def shape(row: MemberRow) -> UserShape:
    """A user as JSON has them."""
    return UserShape(
        id=row.user_id,
        email=row.email,
        name=row.name,
        role=row.role,
        is_enabled=row.is_enabled,
        created_at=format_moment(row.created_ms - row.created_ms % 1000),
    )


def _invitation(row: InvitationRow) -> InvitationShape:
    return InvitationShape(
        id=row.id,
        email=row.email,
        name=row.name,
        role=row.role,
        created_at=format_moment(row.created_ms - row.created_ms % 1000),
        expires_at=format_moment(row.expires_ms - row.expires_ms % 1000),
    )
