"""What belongs to somebody who has signed in: password, second factor, sessions.

Owns their shapes. What could lock somebody out asks for the password once more. Must not know
rules; `service.people` does.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.errors import BursarError
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, format_moment, parse_path_id
from bursar.service.access import UserPrincipal
from bursar.service.people import passwords, proofs, second_factors, sessions, sign_in, throttles
from bursar.service.people.second_factors import SIGNED_IN
from bursar.service.people.sign_in import Attempt
from bursar.store.database import WriteTx

T = TypeVar("T")


class PasswordFields(Model):
    """The password of now, and the one to have from now on."""

    current_password: str
    new_password: str


class EnrolmentFields(Model):
    """Your password, and if you have a passkey, its answer, or a recovery code as `code`.

    Whoever has no password must have signed in within ten minutes.
    """

    password: str | None = None
    code: str | None = None
    passkey: dict[str, Any] | None = None


class CodeFields(Model):
    """A code that your authenticator app shows."""

    code: str


class ProofFields(Model):
    """Your password, and a code of your second factor or a recovery code.

    Whoever has no password must have signed in within ten minutes.
    """

    password: str | None = None
    code: str


class SecondFactorShape(TypedDict):
    """Whether a code is asked for when you sign in, and how many recovery codes are left."""

    is_enrolled: bool
    recovery_codes_left: int


class EnrolmentShape(TypedDict):
    """What an authenticator app takes: the secret, and the same as the address in a QR code."""

    secret: str
    address: str


class RecoveryCodesShape(TypedDict):
    """Codes that work once each, for when the phone is gone; shown this one time."""

    recovery_codes: list[str]


class SessionShape(TypedDict):
    """One sign-in: from which program and address, and when it was last used."""

    id: int
    device: str
    address: str
    account_id: int
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment
    is_current: bool


class SessionListShape(TypedDict):
    """Your sessions, the latest used first."""

    sessions: list[SessionShape]


class SignOutShape(TypedDict):
    """How many sessions have ended."""

    ended: int


async def change_password(call: Call[UserPrincipal]) -> Response:
    """Choose another password; every session but this one ends."""
    given = check(PasswordFields, call.document)
    await passwords.change(
        call.plane.database,
        _attempt(call, given.current_password),
        new=given.new_password,
        session_id=call.caller.session_id,
        people=call.plane.people,
        gate=Inside(),
    )
    return Response(status_code=204)


async def show_second_factor(call: Call[UserPrincipal]) -> Response:
    """Whether you have a second factor."""
    async with call.plane.database.read() as tx:
        found = await second_factors.get_standing(tx, user_id=_user_id(call))
    return reply(
        SecondFactorShape(is_enrolled=found.is_enrolled, recovery_codes_left=found.codes_left)
    )


async def begin_second_factor(call: Call[UserPrincipal]) -> Response:
    """Begin with a second factor; it is asked for once a code is confirmed."""
    given = check(EnrolmentFields, call.document)

    people = call.plane.people

    async def work(tx: WriteTx, user_id: int) -> EnrolmentShape | BursarError:
        if not await second_factors.has_codes(tx, user_id=user_id):
            refused = await proofs.check_second(
                tx,
                people=people,
                user_id=user_id,
                code=given.code,
                passkey=given.passkey,
                known_place=SIGNED_IN,
            )
            if refused is not None:
                return refused
        made = await second_factors.begin(
            tx, people=people, user_id=user_id, email=call.caller.email
        )
        return EnrolmentShape(secret=made.secret, address=made.address)

    return reply(await _with_password(call, given.password, work), status=201)


async def confirm_second_factor(call: Call[UserPrincipal]) -> Response:
    """Have the second factor asked for from now on, and get recovery codes."""
    given = check(CodeFields, call.document)

    async def work(tx: WriteTx) -> list[str] | BursarError:
        return await second_factors.confirm(
            tx, people=call.plane.people, user_id=_user_id(call), code=given.code
        )

    codes = await sign_in.in_turn(call.plane.database, Inside(), work)
    return reply(RecoveryCodesShape(recovery_codes=codes))


async def renew_recovery_codes(call: Call[UserPrincipal]) -> Response:
    """Get new recovery codes, in place of those that are left."""
    given = check(ProofFields, call.document)

    async def work(tx: WriteTx, user_id: int) -> RecoveryCodesShape | BursarError:
        refused = await _check_code(tx, call, given.code)
        if refused is not None:
            return refused
        codes = await second_factors.renew_codes(tx, people=call.plane.people, user_id=user_id)
        return RecoveryCodesShape(recovery_codes=codes)

    return reply(await _with_password(call, given.password, work))


async def remove_second_factor(call: Call[UserPrincipal]) -> Response:
    """Sign in without a second factor from now on."""
    given = check(ProofFields, call.document)

    async def work(tx: WriteTx, user_id: int) -> BursarError | None:
        refused = await _check_code(tx, call, given.code)
        if refused is None:
            await second_factors.remove(tx, user_id=user_id)
        return refused

    await _with_password(call, given.password, work)
    return Response(status_code=204)


async def list_sessions(call: Call[UserPrincipal]) -> Response:
    """Where you are signed in."""
    now_ms = call.plane.now_ms()
    async with call.plane.database.read() as tx:
        found = await sessions.list_open(tx, user_id=_user_id(call), now_ms=now_ms)
    shapes = [
        SessionShape(
            id=row.id,
            device=row.device,
            address=row.address,
            account_id=row.account_id,
            created_at=format_moment(row.created_ms),
            last_used_at=format_moment(row.last_used_ms),
            expires_at=format_moment(row.expires_ms),
            is_current=row.id == call.caller.session_id,
        )
        for row in found
    ]
    return reply(SessionListShape(sessions=shapes))


async def end_session(call: Call[UserPrincipal]) -> Response:
    """Sign out in one place."""
    session_id = parse_path_id(call.path["session_id"])

    async def work(tx: WriteTx) -> None:
        await sessions.end_one(tx, user_id=_user_id(call), session_id=session_id)

    await call.plane.database.transact(work)
    return Response(status_code=204)


async def sign_out_everywhere(call: Call[UserPrincipal]) -> Response:
    """Sign out everywhere, here too."""

    async def work(tx: WriteTx) -> int:
        return await sessions.end_all(tx, user_id=_user_id(call))

    return reply(SignOutShape(ended=await call.plane.database.transact(work)))


async def _check_code(tx: WriteTx, call: Call[UserPrincipal], code: str) -> BursarError | None:
    people, user_id = call.plane.people, _user_id(call)
    bucket = throttles.of_codes(people.vault, user_id, SIGNED_IN)
    return await second_factors.check(tx, people=people, user_id=user_id, code=code, bucket=bucket)


async def _with_password(
    call: Call[UserPrincipal],
    password: str | None,
    work: Callable[[WriteTx, int], Awaitable[T | BursarError]],
) -> T:
    return await sign_in.prove_first_again(
        call.plane.database,
        _attempt(call, password or ""),
        work,
        session_id=call.caller.session_id,
        people=call.plane.people,
        gate=Inside(),
    )


def _attempt(call: Call[UserPrincipal], password: str) -> Attempt:
    return Attempt(email=call.caller.email, password=password, address=call.address)


def _user_id(call: Call[UserPrincipal]) -> int:
    return call.caller.user_id or 0


class Inside:
    """The gate for whoever has come through it already: twice would be one too many."""

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        yield
