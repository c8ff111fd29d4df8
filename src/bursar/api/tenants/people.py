"""People over HTTP, for operators: everybody, and those of one account.

Owns their shapes where they are not those that an account's own people see. Must not know rules;
`service.tenants.people` and `service.people` do.
"""

import re
from dataclasses import replace
from typing import Any, Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.people import members
from bursar.edge import pages
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import Moment, format_moment, parse_path_id
from bursar.service.access import OperatorPrincipal, ProvisioningPrincipal
from bursar.service.tenants import people
from bursar.service.tenants.people import Person
from bursar.store.database import WriteTx

_LIST: Final = "people"
_POSITION: Final = re.compile(r"([0-9]{1,18})")


class MembershipShape(TypedDict):
    """What somebody is in an account; where they are not enabled they cannot act."""

    account_id: int
    role: str
    is_enabled: bool


class PersonShape(TypedDict):
    """Somebody; one who is not enabled can sign in nowhere."""

    id: int
    email: str
    name: str
    is_enabled: bool
    created_at: Moment
    memberships: list[MembershipShape]


class PersonListShape(TypedDict):
    """A page of people; `next_cursor` is null on the last one."""

    users: list[PersonShape]
    next_cursor: str | None


class PersonFields(Model):
    """What to change of somebody."""

    is_enabled: bool


class SignedOutShape(TypedDict):
    """How many sessions have ended."""

    ended: int


async def list_people(call: Call[OperatorPrincipal]) -> Response:
    """Everybody who has a user, oldest first; with `email`, who has this address."""
    query = call.query
    cursor = query.find("cursor")
    limit = query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    after_id = 0 if cursor is None else int(pages.read(cursor, _LIST, form=_POSITION)[0])
    async with call.plane.database.read() as tx:
        found = await people.list_people(
            tx, after_id=after_id, limit=limit + 1, email=query.find("email")
        )
    page = found[:limit]
    is_last = len(found) <= limit
    return reply(
        PersonListShape(
            users=[_shape(each) for each in page],
            next_cursor=None if is_last else pages.write(_LIST, page[-1].row.id),
        )
    )


async def show_person(call: Call[OperatorPrincipal]) -> Response:
    """Somebody, and what they are in each of their accounts."""
    user_id = parse_path_id(call.path["user_id"])
    async with call.plane.database.read() as tx:
        return reply(_shape(await people.get(tx, user_id=user_id)))


async def update_person(call: Call[OperatorPrincipal]) -> Response:
    """Let somebody in wherever they belong, or nowhere; their sessions end then."""
    user_id = parse_path_id(call.path["user_id"])

    async def work(tx: WriteTx) -> Person:
        # Asked for before the fields are read: an unknown user is 404 whatever is to be changed.
        await people.get(tx, user_id=user_id)
        fields = check(PersonFields, call.document)
        return await people.set_enabled(tx, user_id=user_id, is_enabled=fields.is_enabled)

    return reply(_shape(await call.plane.database.transact(work)))


async def sign_out(call: Call[OperatorPrincipal]) -> Response:
    """End every session of somebody, in every account."""
    user_id = parse_path_id(call.path["user_id"])

    async def effect(tx: WriteTx) -> SignedOutShape:
        return SignedOutShape(ended=await people.sign_out(tx, user_id=user_id))

    return await carry_out(call, effect, status=200)


async def list_users(call: Call[OperatorPrincipal]) -> Response:
    """The users of an account, oldest first."""
    return await members.list_users(await _inside(call))


async def invite(call: Call[OperatorPrincipal]) -> Response:
    """Invite somebody into an account by mail, as its owners may: so a new one gets its first."""
    return await members.invite(await _inside(call))


async def show_user(call: Call[OperatorPrincipal]) -> Response:
    """One user of an account."""
    return await members.show(await _inside(call))


async def update_user(call: Call[OperatorPrincipal]) -> Response:
    """Change a user's role in an account, let them in there or not, or what it calls them."""
    return await members.update(await _inside(call))


async def remove_user(call: Call[OperatorPrincipal]) -> Response:
    """Take a user out of an account; their sessions and provisioning keys there end."""
    return await members.remove(await _inside(call))


async def list_invitations(call: Call[OperatorPrincipal]) -> Response:
    """The open invitations of an account."""
    return await members.list_invitations(await _inside(call))


async def withdraw(call: Call[OperatorPrincipal]) -> Response:
    """Take an invitation into an account back."""
    return await members.withdraw(await _inside(call))


async def _inside(call: Call[OperatorPrincipal]) -> Call[ProvisioningPrincipal]:
    """The same call as an owner of the account would make it."""
    account_id = parse_path_id(call.path["account_id"])
    async with call.plane.database.read() as tx:
        acting = await people.act_in(tx, operator=call.caller, account_id=account_id)
    either: Call[Any] = call
    return replace(either, caller=acting)


def _shape(person: Person) -> PersonShape:
    row = person.row
    return PersonShape(
        id=row.id,
        email=row.email,
        name=row.name,
        is_enabled=person.is_enabled,
        created_at=format_moment(row.created_ms - row.created_ms % 1000),
        memberships=[
            MembershipShape(account_id=each.account_id, role=each.role, is_enabled=each.is_enabled)
            for each in person.memberships
        ],
    )
