"""The users of an account as Cerevox has them: members, and those who are invited.

Owns their shapes. A user whom Cerevox makes is somebody whom we invite: their id is the
invitation's (`inv_7`) until they have accepted, and then their own. Must not know rules.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from bursar.core.errors import Invalid, NotFound
from bursar.core.people import emails
from bursar.core.people.roles import Action, Role
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import find_id, format_moment
from bursar.service.access import ProvisioningPrincipal
from bursar.service.people import invitations, members
from bursar.service.people.invitations import Invited
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people.letters import InvitationRow
from bursar.store.people.members import MemberRow

_INVITED: Final = "inv_"
_ADMINS: Final = frozenset((Role.OWNER, Role.ADMIN))
_DONE: Final = "success"


class NewUserFields(Model):
    """Somebody to invite; a member, if it is not said."""

    email: str
    name: str | None = None
    role: str = Role.MEMBER


class OwnFields(Model):
    """What the caller is called."""

    name: str


class UserFields(Model):
    """What the account calls somebody, and their role; absent and null leave alone."""

    name: str | None = None
    role: str | None = None


class DeletionFields(Model):
    """The address of the one who is to go, so that it is nobody else."""

    email: str


async def list_users(call: Call[ProvisioningPrincipal]) -> Response:
    """Everybody in the account and, for who may invite, everybody who is invited, oldest first."""
    account_id = call.caller.account_id
    async with call.plane.database.read() as tx:
        last_used = await members.list_last_used(tx, account_id=account_id)
        found = await members.list_members(
            tx, account_id=account_id, after_id=0, limit=members.MOST
        )
        invited: Sequence[InvitationRow] = ()
        if call.caller.may(Action.PEOPLE):
            now_ms = call.plane.now_ms()
            invited = await invitations.list_open(tx, account_id=account_id, now_ms=now_ms)
    users = [_member(row, last_used) for row in found]
    return reply({"users": [*users, *map(_invitation, invited)]})


async def create(call: Call[ProvisioningPrincipal]) -> Response:
    """Invite somebody by mail."""
    given = check(NewUserFields, call.document)
    people = call.plane.people
    made: list[Invited] = []

    async def effect(tx: WriteTx) -> dict[str, Any]:
        invited = await invitations.invite(
            tx, people=people, by=call.caller, email=given.email, role=given.role, name=given.name
        )
        # Whoever is asked to do it again has undone the first: only the last letter counts.
        made[:] = [invited]
        return {**_invitation(invited.row), "created": True, "status": _DONE}

    response = await carry_out(call, effect, status=201)
    for each in made:
        people.send(each.letter)
    return response


async def show_self(call: Call[ProvisioningPrincipal]) -> Response:
    """Whom the caller acts for."""
    async with call.plane.database.read() as tx:
        row = await members.get_self(tx, by=call.caller)
        last_used = await members.list_last_used(tx, account_id=row.account_id)
    return reply(_member(row, last_used))


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """One user of the account."""
    async with call.plane.database.read() as tx:
        row = await _find(tx, call)
        last_used = await members.list_last_used(tx, account_id=row.account_id)
    if isinstance(row, InvitationRow):
        return reply(_invitation(row))
    return reply(_member(row, last_used))


async def update_self(call: Call[ProvisioningPrincipal]) -> Response:
    """Change the name of whom the caller acts for."""
    given = check(OwnFields, call.document)

    async def work(tx: WriteTx) -> MemberRow:
        return await members.rename(tx, by=call.caller, name=given.name)

    row = await call.plane.database.unbound().transact(work)
    return _updated(_member(row, {}))


async def update(call: Call[ProvisioningPrincipal]) -> Response:
    """Change what the account calls somebody, or their role."""

    async def work(tx: WriteTx) -> dict[str, Any]:
        before = await _find(tx, call)
        given = check(UserFields, call.document)
        if isinstance(before, MemberRow):
            after = await members.update(
                tx, by=call.caller, user_id=before.user_id, role=given.role, name=given.name
            )
            return _member(after, {})
        if given.role not in {None, before.role}:
            message = "An invitation keeps its role: invite them again to change it."
            raise Invalid("invalid_value", message, param="role")
        name = before.name if given.name is None else given.name
        return _invitation(
            await invitations.rename(tx, by=call.caller, invitation_id=before.id, name=name)
        )

    return _updated(await call.plane.database.transact(work))


async def delete(call: Call[ProvisioningPrincipal]) -> Response:
    """Take somebody else out of the account, or an invitation back; the address must be theirs."""

    async def work(tx: WriteTx) -> None:
        row = await _find(tx, call)
        given = check(DeletionFields, call.document)
        if emails.find_email(given.email) != row.email:
            raise Invalid("invalid_value", "This is not the user's address.", param="email")
        if isinstance(row, InvitationRow):
            await invitations.withdraw(tx, by=call.caller, invitation_id=row.id)
            return
        if row.user_id == call.caller.user_id:
            raise Invalid("invalid_value", "You cannot delete yourself here.", param="user_id")
        await members.remove(tx, by=call.caller, user_id=row.user_id)

    await call.plane.database.transact(work)
    return reply({"deleted": True, "status": _DONE})


async def _find(tx: ReadTx, call: Call[ProvisioningPrincipal]) -> MemberRow | InvitationRow:
    """The user whom the path names: a member, or somebody who is invited."""
    asked, account_id = call.path["user_id"], call.caller.account_id
    number = find_id(asked.removeprefix(_INVITED))
    is_invited = asked.startswith(_INVITED)
    if number is None or (is_invited and not call.caller.may(Action.PEOPLE)):
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    if not is_invited:
        return await members.get(tx, account_id=account_id, user_id=number)
    return await invitations.get_open(
        tx, account_id=account_id, invitation_id=number, now_ms=call.plane.now_ms()
    )


def _updated(user: Mapping[str, Any]) -> Response:
    return reply({**user, "updated": True, "status": _DONE})


def _member(row: MemberRow, last_used: Mapping[int, int]) -> dict[str, Any]:
    last_ms = last_used.get(row.user_id)
    return {
        **_user(str(row.user_id), row),
        "isbanned": not row.is_enabled,
        "lastlogin": None if last_ms is None else format_moment(last_ms - last_ms % 1_000),
        "status": "active" if row.is_enabled else "suspended",
    }


def _invitation(row: InvitationRow) -> dict[str, Any]:
    return {
        **_user(f"{_INVITED}{row.id}", row),
        "isbanned": False,
        "lastlogin": None,
        "status": "pending",
    }


def _user(user_id: str, row: MemberRow | InvitationRow) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "account_id": str(row.account_id),
        "email": row.email,
        "name": row.name or row.email,
        # Names are not taken apart: nobody knows which part is which.
        "firstname": None,
        "lastname": None,
        "role": row.role,
        "isadmin": row.role in _ADMINS,
        "created_at": format_moment(row.created_ms - row.created_ms % 1_000),
    }
