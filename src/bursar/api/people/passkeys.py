"""Passkeys on the wire: signing in with one, and one's own.

Owns their shapes. What a browser takes and answers is WebAuthn's JSON, handed through as it is.
Must not know rules; `service.people` does.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.people.profile import Inside
from bursar.api.people.sign_in import tokens
from bursar.core.errors import BursarError
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.edge.fields import IdIn, Moment, format_moment, parse_path_id
from bursar.service.access import UserPrincipal
from bursar.service.people import passkeys, sign_in
from bursar.service.people.passkeys import Asked, Made
from bursar.service.people.sign_in import Attempt, Whereabouts
from bursar.store.database import WriteTx
from bursar.store.people.passkeys import PasskeyRow

T = TypeVar("T")


class NothingFields(Model):
    """Nothing: an empty object."""


class PasskeySignInFields(Model):
    """What the browser answered; `account_id` if it is not to be the first account."""

    passkey: dict[str, Any]
    account_id: IdIn | None = None


class AgainFields(Model):
    """Your password, if you have one, and your second factor, if you have one.

    Whoever has no password must have signed in within ten minutes.
    """

    password: str | None = None
    code: str | None = None
    passkey: dict[str, Any] | None = None


class NewPasskeyFields(Model):
    """What to call the passkey, and what the browser answered to the options."""

    name: str
    credential: dict[str, Any]


class PasskeyFields(Model):
    """What to call the passkey."""

    name: str


class PasskeyOptionsShape(TypedDict):
    """What the browser's `navigator.credentials` takes as its `publicKey`, as JSON."""

    options: dict[str, Any]
    expires_at: Moment


class PasskeyShape(TypedDict):
    """One of your passkeys; one that is synced is on several devices."""

    id: int
    name: str
    is_synced: bool
    created_at: Moment
    last_used_at: Moment | None


class NewPasskeyShape(TypedDict):
    """The passkey, and recovery codes if it is your first second factor; shown this one time."""

    passkey: PasskeyShape
    recovery_codes: list[str] | None


class PasskeyListShape(TypedDict):
    """Your passkeys, oldest first."""

    passkeys: list[PasskeyShape]


async def ask(call: Call[None]) -> Response:
    """Begin to sign in with a passkey: what the browser is to ask for."""
    check(NothingFields, call.document)
    plane = call.plane

    async def work(tx: WriteTx) -> Asked:
        return await passkeys.ask(tx, people=plane.people, address=call.address)

    return reply(_options(await sign_in.in_turn(plane.database, plane.gate, work)))


async def start(call: Call[None]) -> Response:
    """Sign in with a passkey alone."""
    given = check(PasskeySignInFields, call.document)
    plane = call.plane
    found = await sign_in.with_passkey(
        plane.database,
        given.passkey,
        where=Whereabouts(call.address, call.headers.get("user-agent", "")),
        account_id=given.account_id,
        people=plane.people,
        gate=plane.gate,
    )
    return reply(tokens(found, now_ms=plane.now_ms()))


async def list_own(call: Call[UserPrincipal]) -> Response:
    """Your passkeys."""
    async with call.plane.database.read() as tx:
        found = await passkeys.list_own(tx, user_id=call.caller.user_id or 0)
    return reply(PasskeyListShape(passkeys=[_shape(row) for row in found]))


async def begin(call: Call[UserPrincipal]) -> Response:
    """Begin with a new passkey: what the browser is to make."""

    async def work(tx: WriteTx) -> Asked:
        return await passkeys.begin(tx, people=call.plane.people, user_id=call.caller.user_id or 0)

    return reply(_options(await again(call, check(AgainFields, call.document), work)))


async def finish(call: Call[UserPrincipal]) -> Response:
    """Keep the passkey that the browser has made."""
    given = check(NewPasskeyFields, call.document)
    plane = call.plane

    async def work(tx: WriteTx) -> Made | BursarError:
        return await passkeys.finish(
            tx,
            people=plane.people,
            user_id=call.caller.user_id or 0,
            name=given.name,
            credential=given.credential,
        )

    made = await sign_in.in_turn(plane.database, Inside(), work)
    shape = NewPasskeyShape(passkey=_shape(made.row), recovery_codes=made.recovery_codes)
    return reply(shape, status=201)


async def rename(call: Call[UserPrincipal]) -> Response:
    """Call a passkey something else."""
    passkey_id = parse_path_id(call.path["passkey_id"])

    async def work(tx: WriteTx) -> PasskeyRow:
        user_id = call.caller.user_id or 0
        await passkeys.get_own(tx, user_id=user_id, passkey_id=passkey_id)
        given = check(PasskeyFields, call.document)
        return await passkeys.rename(tx, user_id=user_id, passkey_id=passkey_id, name=given.name)

    return reply(_shape(await call.plane.database.transact(work)))


async def remove(call: Call[UserPrincipal]) -> Response:
    """Forget a passkey."""
    passkey_id = parse_path_id(call.path["passkey_id"])
    user_id = call.caller.user_id or 0
    async with call.plane.database.read() as tx:
        await passkeys.get_own(tx, user_id=user_id, passkey_id=passkey_id)

    async def work(tx: WriteTx) -> None:
        await passkeys.remove(tx, user_id=user_id, passkey_id=passkey_id)

    await again(call, check(AgainFields, call.document), work)
    return Response(status_code=204)


async def again(
    call: Call[UserPrincipal],
    given: AgainFields,
    work: Callable[[WriteTx], Awaitable[T | BursarError]],
) -> T:
    """Do `work` for somebody signed in who proves once more who they are."""
    attempt = Attempt(
        email=call.caller.email,
        password=given.password or "",
        code=given.code,
        passkey=given.passkey,
        address=call.address,
    )
    return await sign_in.prove_again(
        call.plane.database,
        attempt,
        work,
        session_id=call.caller.session_id,
        people=call.plane.people,
        gate=Inside(),
    )


def _options(asked: Asked) -> PasskeyOptionsShape:
    return PasskeyOptionsShape(options=asked.options, expires_at=format_moment(asked.expires_ms))


def _shape(row: PasskeyRow) -> PasskeyShape:
    last = row.last_used_ms
    return PasskeyShape(
        id=row.id,
        name=row.name,
        is_synced=bool(row.is_synced),
        created_at=format_moment(row.created_ms),
        last_used_at=None if last is None else format_moment(last),
    )
