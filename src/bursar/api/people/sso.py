"""Single sign-on on the wire: to a sign-in service and back, and one's identities there.

Owns their shapes. Must not know rules; `service.sso` does.
"""

from typing import Any

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.people.passkeys import AgainFields, again
from bursar.api.people.profile import Inside
from bursar.api.people.sign_in import tokens
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.edge.fields import IdIn, Moment, format_moment, parse_path_id
from bursar.service.access import UserPrincipal
from bursar.service.people.sign_in import Whereabouts
from bursar.service.sso import flows, persons
from bursar.service.sso.flows import Back, Started, Wanted
from bursar.store.database import WriteTx
from bursar.store.people.identities import IdentityRow


class FlowFields(Model):
    """Which service to sign in at, and where it is to send the browser back to."""

    provider: str
    redirect_uri: str


class LinkFlowFields(AgainFields):
    """Which service to link, where it is to send the browser back to, and who you are once more."""

    provider: str
    redirect_uri: str


class ReturnFields(Model):
    """The flow's token, and what came back with the browser: `state`, `code` and maybe `iss`."""

    flow_token: str
    state: str
    code: str
    iss: str | None = None


class SsoSignInFields(ReturnFields):
    """What came back; where it was refused for want of a second factor, the same with one.

    `second_factor_code` is a code of the app or a recovery code; `account_id` is sent if it is not
    to be the first account.
    """

    account_id: IdIn | None = None
    second_factor_code: str | None = None
    passkey: dict[str, Any] | None = None


class ProviderShape(TypedDict):
    """A sign-in service: its name for requests, and what people call it."""

    name: str
    title: str


class ProviderListShape(TypedDict):
    """The sign-in services that there are."""

    providers: list[ProviderShape]


class FlowShape(TypedDict):
    """Where to send the browser, and what to keep to yourself until it is back."""

    authorization_url: str
    flow_token: str
    expires_at: Moment


class IdentityShape(TypedDict):
    """Who you are at a sign-in service; `email` is what it said last."""

    id: int
    provider: str
    email: str
    created_at: Moment
    last_used_at: Moment


class IdentityListShape(TypedDict):
    """Who you are elsewhere, oldest first."""

    identities: list[IdentityShape]


async def list_providers(call: Call[None]) -> Response:
    """The sign-in services that can be used."""
    found = call.plane.people.providers.values()
    shapes = [ProviderShape(name=each.name, title=each.title) for each in found]
    return reply(ProviderListShape(providers=shapes))


async def start(call: Call[None]) -> Response:
    """Begin to sign in at a service: where the browser is to go."""
    given = check(FlowFields, call.document)
    plane = call.plane
    started = await flows.start(
        plane.database,
        provider=given.provider,
        redirect_uri=given.redirect_uri,
        where=_where(call),
        people=plane.people,
        gate=plane.gate,
    )
    return reply(_flow(started))


async def finish(call: Call[None]) -> Response:
    """Sign in with what came back from the service."""
    given = check(SsoSignInFields, call.document)
    plane = call.plane
    wanted = Wanted(
        where=_where(call),
        account_id=given.account_id,
        code=given.second_factor_code,
        passkey=given.passkey,
    )
    found = await flows.finish(
        plane.database, _back(given), wanted, people=plane.people, gate=plane.gate
    )
    return reply(tokens(found, now_ms=plane.now_ms()))


async def list_own(call: Call[UserPrincipal]) -> Response:
    """Who you are at sign-in services."""
    async with call.plane.database.read() as tx:
        found = await persons.list_own(tx, user_id=call.caller.user_id or 0)
    return reply(IdentityListShape(identities=[_shape(row) for row in found]))


async def start_link(call: Call[UserPrincipal]) -> Response:
    """Begin to link who you are at a service: where the browser is to go."""
    given = check(LinkFlowFields, call.document)
    plane = call.plane

    async def work(_: WriteTx) -> None:
        """Nothing more than the proof."""

    await again(call, given, work)
    started = await flows.start(
        plane.database,
        provider=given.provider,
        redirect_uri=given.redirect_uri,
        where=_where(call),
        people=plane.people,
        gate=Inside(),
        user_id=call.caller.user_id,
    )
    return reply(_flow(started))


async def link(call: Call[UserPrincipal]) -> Response:
    """Link who you are at a service with what came back from it."""
    given = check(ReturnFields, call.document)
    plane = call.plane
    row = await flows.link(
        plane.database,
        _back(given),
        user_id=call.caller.user_id or 0,
        where=_where(call),
        people=plane.people,
        gate=Inside(),
    )
    return reply(_shape(row), status=201)


async def unlink(call: Call[UserPrincipal]) -> Response:
    """Do not be known by a service any more."""
    identity_id = parse_path_id(call.path["identity_id"])
    user_id = call.caller.user_id or 0
    async with call.plane.database.read() as tx:
        await persons.get_own(tx, user_id=user_id, identity_id=identity_id)

    async def work(tx: WriteTx) -> None:
        await persons.unlink(tx, user_id=user_id, identity_id=identity_id)

    await again(call, check(AgainFields, call.document), work)
    return Response(status_code=204)


def _where(call: Call[Any]) -> Whereabouts:
    return Whereabouts(call.address, call.headers.get("user-agent", ""))


def _back(given: ReturnFields) -> Back:
    return Back(flow_token=given.flow_token, state=given.state, code=given.code, issuer=given.iss)


def _flow(started: Started) -> FlowShape:
    return FlowShape(
        authorization_url=started.authorization_url,
        flow_token=started.flow_token,
        expires_at=format_moment(started.expires_ms),
    )


def _shape(row: IdentityRow) -> IdentityShape:
    return IdentityShape(
        id=row.id,
        provider=row.provider,
        email=row.email,
        created_at=format_moment(row.created_ms),
        last_used_at=format_moment(row.last_used_ms),
    )
