"""Tokens: for a provisioning key, for an address and a password, for tokens, and none any more.

Owns their shapes. A key is sent in the scheme Basic without a colon, an address and a password in
the same scheme or as JSON. Must not know rules.
"""

from typing import Any

from starlette.responses import Response

from bursar.core import refusals, secrets
from bursar.core.errors import BursarError, Invalid, Unreadable
from bursar.core.refusals import Reason
from bursar.dialects.cerevox import fields
from bursar.edge import calls
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.edge.fields import find_id, format_moment
from bursar.service.access import ProvisioningPrincipal
from bursar.service.keys import sessions as of_keys
from bursar.service.keys.sessions import Traded
from bursar.service.people import sessions, sign_in, throttles
from bursar.service.people.sessions import SignedIn
from bursar.service.people.sign_in import Attempt
from bursar.store.database import WriteTx

_COLON = ":"


class LoginFields(Model):
    """Who signs in, unless the header says so; `code` where there is a second factor."""

    login: bool | None = None
    email: str | None = None
    password: str | None = None
    code: str | None = None
    account_id: str | None = None


class RefreshFields(Model):
    """The refresh token to take the place of."""

    refresh_token: str


async def start(call: Call[None]) -> Response:
    """Trade a provisioning key for tokens, or sign in with an address and a password."""
    given = check(LoginFields, call.document)
    basic = fields.find_basic(call.headers)
    if basic is not None and (given.email is not None or given.password is not None):
        message = "Say who you are in the header or in the body, not in both."
        raise Unreadable("ambiguous_credentials", message)
    if basic is not None and _COLON not in basic:
        return _answer(await _trade(call, basic), now_ms=call.plane.now_ms())
    email, password = given.email, given.password
    if basic is not None:
        email, _, password = basic.partition(_COLON)
    if email is None and password is None:
        raise refusals.as_error(refusals.deny(Reason.MISSING))
    if email is None or password is None:
        missing = "email" if email is None else "password"
        raise Invalid("missing_field", "This field is required.", param=missing)
    attempt = Attempt(
        email=email,
        password=password,
        code=given.code,
        account_id=_account_id(given.account_id),
        address=call.address,
        device=call.headers.get("user-agent", ""),
    )
    plane = call.plane
    found = await sign_in.sign_in(plane.database, attempt, people=plane.people, gate=plane.gate)
    return _answer(found, now_ms=plane.now_ms())


async def refresh(call: Call[None]) -> Response:
    """New tokens for a refresh token, and for the key that its session is of, if it is a key's."""
    given = check(RefreshFields, call.document)
    plane, basic = call.plane, fields.find_basic(call.headers)
    with plane.token_pace.of_failures(call.address, now_ms=plane.now_ms):
        key = None if basic is None or _COLON in basic else await _prove_key(call, basic)

        async def work(tx: WriteTx) -> SignedIn | Traded | BursarError:
            people, token = plane.people, given.refresh_token
            if key is None:
                return await sessions.refresh(tx, people=people, token=token)
            return await of_keys.refresh(tx, people=people, key=key, token=token)

        found: SignedIn | Traded = await sign_in.with_refresh_token(
            plane.database, given.refresh_token, work, gate=plane.gate
        )
    return _answer(found, now_ms=plane.now_ms())


async def revoke(call: Call[ProvisioningPrincipal]) -> Response:
    """End the session of the access token; others of the same person or key go on."""
    if not call.caller.session_seal:
        message = "Send the access token whose session is to end, not a key."
        raise Invalid("invalid_value", message, param="authorization")

    async def work(tx: WriteTx) -> None:
        await sessions.revoke(tx, token=call.secret.decode("latin-1"))

    await call.plane.database.transact(work)
    return reply({"message": "The session has ended.", "status": "success"})


async def _trade(call: Call[None], secret: str) -> Traded:
    key = await _prove_key(call, secret)
    plane = call.plane

    async def work(tx: WriteTx) -> Traded:
        return await of_keys.trade(
            tx,
            people=plane.people,
            key=key,
            device=call.headers.get("user-agent", ""),
            address=throttles.place(call.address),
        )

    return await sign_in.in_turn(plane.database, plane.gate, work)


async def _prove_key(call: Call[None], secret: str) -> ProvisioningPrincipal:
    """Who presents a key; an access token is none, or a session would beget others."""
    if secrets.parse(secret) is None:
        raise refusals.as_error(refusals.deny(Reason.MALFORMED))
    async with call.plane.gate.enter():
        return await calls.prove(
            call.plane,
            secret=secret.encode(),
            wanted=ProvisioningPrincipal,
            address=call.address,
        )


def _account_id(text: str | None) -> int | None:
    number = None if text is None else find_id(text)
    if text is not None and number is None:
        raise Invalid("invalid_value", "It must be an id.", param="account_id")
    return number


def _answer(found: SignedIn | Traded, *, now_ms: int) -> Response:
    expires_ms = found.access.expires_ms
    shown: dict[str, Any] = {
        "access_token": found.access.text,
        "token_type": "Bearer",
        "expires_in": max(0, (expires_ms - now_ms) // 1_000),
        "expires_at": expires_ms // 1_000,
        "refresh_token": found.refresh_token,
        "refresh_token_expires_at": format_moment(found.refresh_expires_ms),
        "session_id": str(found.session_id),
    }
    if isinstance(found, Traded):
        shown |= {"account_id": str(found.account_id), "user_id": None}
    else:
        member = found.member
        shown |= {"account_id": str(member.account_id), "user_id": str(member.user_id)}
    return reply(shown)
