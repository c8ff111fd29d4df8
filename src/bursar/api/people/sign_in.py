"""Signing in on the wire: tokens for a password, for tokens, and none any more; letters answered.

Owns their shapes. None of these needs a key, so each says as little as it can. Must not know rules;
`service.people` does.
"""

from contextlib import suppress
from typing import Any

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.errors import BursarError, Unauthenticated
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.edge.fields import IdIn, Moment, format_moment
from bursar.service.people import invitations, passwords, sessions, sign_in
from bursar.service.people.invitations import Acceptance
from bursar.service.people.sessions import SignedIn
from bursar.service.people.sign_in import Attempt
from bursar.store.database import WriteTx


class SignInFields(Model):
    """Who signs in; `code` or `passkey` where there is a second factor.

    `passkey` is what the browser answered to the options of `/v1/auth/passkeys/challenge`;
    `account_id` is sent if it is not to be the first account.
    """

    email: str
    password: str
    code: str | None = None
    passkey: dict[str, Any] | None = None
    account_id: IdIn | None = None


class RefreshFields(Model):
    """The refresh token to take the place of; `account_id` to go on in another account."""

    refresh_token: str
    account_id: IdIn | None = None


class RevocationFields(Model):
    """A refresh token or an access token, whose session is to end."""

    token: str


class ResetFields(Model):
    """Whose password is forgotten."""

    email: str


class NewPasswordFields(Model):
    """The token of the letter, and the password to have from now on."""

    token: str
    password: str


class AcceptanceFields(Model):
    """The token of the invitation; a new person's password and name, or a known one's password."""

    token: str
    password: str
    name: str | None = None
    email: str | None = None


class TokensShape(TypedDict):
    """An access token for some minutes, and a refresh token, which works once."""

    access_token: str
    token_type: str
    expires_in: int
    expires_at: Moment
    refresh_token: str
    refresh_token_expires_at: Moment
    session_id: int
    user_id: int
    account_id: int
    role: str


class RevocationShape(TypedDict):
    """The token is of no more use, if it ever was."""

    revoked: bool


class ResetShape(TypedDict):
    """If somebody has the address, a letter is on its way."""

    requested: bool


class AcceptanceShape(TypedDict):
    """Who is a member of which account now, and as what."""

    user_id: int
    account_id: int
    email: str
    role: str


async def start(call: Call[None]) -> Response:
    """Sign in with address and password, and a code where there is a second factor."""
    given = check(SignInFields, call.document)
    attempt = Attempt(
        email=given.email,
        password=given.password,
        code=given.code,
        passkey=given.passkey,
        account_id=given.account_id,
        address=call.address,
        device=call.headers.get("user-agent", ""),
    )
    plane = call.plane
    found = await sign_in.sign_in(plane.database, attempt, people=plane.people, gate=plane.gate)
    return reply(tokens(found, now_ms=plane.now_ms()))


async def refresh(call: Call[None]) -> Response:
    """New tokens for a refresh token, which is used up."""
    given = check(RefreshFields, call.document)
    plane = call.plane

    async def work(tx: WriteTx) -> SignedIn | BursarError:
        return await sessions.refresh(
            tx, people=plane.people, token=given.refresh_token, account_id=given.account_id
        )

    with plane.token_pace.of_failures(call.address, now_ms=plane.now_ms):
        found = await sign_in.with_refresh_token(
            plane.database, given.refresh_token, work, gate=plane.gate
        )
    return reply(tokens(found, now_ms=plane.now_ms()))


async def revoke(call: Call[None]) -> Response:
    """End the session of a token; any other text is answered the same."""
    given = check(RevocationFields, call.document)
    plane = call.plane
    with suppress(Unauthenticated), plane.token_pace.of_failures(call.address, now_ms=plane.now_ms):
        if not await sign_in.revoke(plane.database, given.token, gate=plane.gate):
            raise sessions.invalid()
    return reply(RevocationShape(revoked=True))


async def request_reset(call: Call[None]) -> Response:
    """Ask for a letter with which a new password can be chosen."""
    given = check(ResetFields, call.document)
    plane = call.plane
    await passwords.request_reset(
        plane.database,
        email=given.email,
        address=call.address,
        people=plane.people,
        gate=plane.gate,
    )
    return reply(ResetShape(requested=True), status=202)


async def reset(call: Call[None]) -> Response:
    """Choose a new password with the token of a letter; every session ends."""
    given = check(NewPasswordFields, call.document)
    plane = call.plane
    with plane.token_pace.of_failures(call.address, now_ms=plane.now_ms):
        await passwords.reset(
            plane.database,
            token=given.token,
            new=given.password,
            people=plane.people,
            gate=plane.gate,
        )
    return Response(status_code=204)


async def accept(call: Call[None]) -> Response:
    """Become a member of the account that an invitation is for."""
    given = check(AcceptanceFields, call.document)
    plane = call.plane
    acceptance = Acceptance(
        token=given.token,
        password=given.password,
        name=given.name,
        email=given.email,
        address=call.address,
    )
    with plane.token_pace.of_failures(call.address, now_ms=plane.now_ms):
        member = await invitations.accept(
            plane.database, acceptance, people=plane.people, gate=plane.gate
        )
    return reply(
        AcceptanceShape(
            user_id=member.user_id,
            account_id=member.account_id,
            email=member.email,
            role=member.role,
        ),
        status=201,
    )


def tokens(found: SignedIn, *, now_ms: int) -> TokensShape:
    """The tokens of a session as JSON has them."""
    return TokensShape(
        access_token=found.access.text,
        token_type="Bearer",  # noqa: S106 - the name of the scheme
        expires_in=max(0, (found.access.expires_ms - now_ms) // 1_000),
        expires_at=format_moment(found.access.expires_ms),
        refresh_token=found.refresh_token,
        refresh_token_expires_at=format_moment(found.refresh_expires_ms),
        session_id=found.session_id,
        user_id=found.member.user_id,
        account_id=found.member.account_id,
        role=found.member.role,
    )
