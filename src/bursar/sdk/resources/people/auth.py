"""Signing in, and what belongs to whoever has: sessions, password, second factor.

`Bursar.log_in` is the short way in: it keeps the tokens up by itself.
"""

from collections.abc import Mapping
from typing import Final

from bursar.sdk import results, values
from bursar.sdk.calls import Call, nothing, only
from bursar.sdk.faces import AsyncResource, Resource, awaited, sync
from bursar.sdk.resources.people.passkeys import AsyncPasskeys, Passkeys
from bursar.sdk.resources.people.sign_ins import SignIn
from bursar.sdk.results import Listing, Moment, Result, SecretText

_AUTH = "/v1/auth"
_SESSIONS = f"{_AUTH}/sessions"
_FACTOR = f"{_AUTH}/second-factor"
_RESET = f"{_AUTH}/password-reset"


class OpenSession(Result):
    """One sign-in: from which program and address, and when it was last used."""

    id: int
    device: str
    address: str
    account_id: int
    created_at: Moment
    last_used_at: Moment
    expires_at: Moment
    is_current: bool


class Ended(Result):
    """How many sessions have ended."""

    ended: int


class SecondFactor(Result):
    """Whether a code is asked for at sign-in, and how many recovery codes are left."""

    is_enrolled: bool
    recovery_codes_left: int


class Enrolment(Result):
    """What an authenticator app takes: the secret, and the same as a QR code's address."""

    secret: SecretText
    address: SecretText


class RecoveryCodes(Result):
    """Codes that work once each, for when the phone is gone; shown this one time."""

    recovery_codes: tuple[SecretText, ...]


class Membership(Result):
    """Who is a member of which account, and as what."""

    user_id: int
    account_id: int
    email: str
    role: str


class Introspection(Result):
    """Whether a secret works at this moment; where it does not, all else is None.

    `exp` is when it ends, in seconds since 1970.
    """

    active: bool
    token_type: str | None = None
    account_id: int | None = None
    user_id: int | None = None
    role: str | None = None
    key_id: int | None = None
    session_id: int | None = None
    exp: int | None = None


# ── Anybody's ───────────────────────────────────────────────────────────────────────────────────


def _sign_in(
    email: str,
    password: str,
    *,
    code: str | None = None,
    passkey: Mapping[str, object] | None = None,
    account_id: int | None = None,
) -> Call[SignIn]:
    """Get tokens for address and password, in your first account or the one that is named.

    A second factor is a `code`, or what a browser answered for a `passkey`. Raises Unauthenticated,
    whose code is `second_factor_required` where one is needed, and RateLimited after many tries.
    """
    body = values.some(
        email=email, password=password, code=code, passkey=passkey, account_id=account_id
    )
    read = results.read(SignIn)
    return Call("POST", f"{_AUTH}/login", read, body=body, is_anonymous=True)


def _refresh(refresh_token: str, *, account_id: int | None = None) -> Call[SignIn]:
    """Get the next tokens for a refresh token, to go on here or in another account of yours.

    It is used up then; one that was used before ends the session. Raises Unauthenticated.
    """
    body = values.some(refresh_token=refresh_token, account_id=account_id)
    read = results.read(SignIn)
    # The server gives a lost answer once more, for some seconds.
    return Call(
        "POST", f"{_AUTH}/refresh", read, body=body, is_anonymous=True, is_answered_again=True
    )


def _revoke(token: str) -> Call[None]:
    """End the session that a token of either kind belongs to."""
    return Call(
        "POST",
        f"{_AUTH}/revoke",
        only("revoked"),
        body={"token": token},
        is_anonymous=True,
        is_answered_again=True,
    )


def _request_password_reset(email: str) -> Call[None]:
    """Have a letter sent with which to choose a new password, if somebody has the address."""
    body = {"email": email}
    return Call("POST", _RESET, only("requested"), body=body, is_anonymous=True)


def _reset_password(token: str, *, password: str) -> Call[None]:
    """Choose a new password with the token of a letter; every session ends."""
    body = {"token": token, "password": password}
    return Call("POST", f"{_RESET}/confirm", nothing, body=body, is_anonymous=True)


def _accept_invitation(
    token: str, *, password: str, name: str | None = None, email: str | None = None
) -> Call[Membership]:
    """Join the account that an invitation is for: with a new password, or the one that you have."""
    body = values.some(token=token, password=password, name=name, email=email)
    path = f"{_AUTH}/invitations/accept"
    return Call("POST", path, results.read(Membership), body=body, is_anonymous=True)


# ── Yours ───────────────────────────────────────────────────────────────────────────────────────


def _list_sessions() -> Call[Listing[OpenSession]]:
    """Where you are signed in, the latest used first."""
    return Call("GET", _SESSIONS, results.read_list(OpenSession, "sessions"))


def _end_session(session_id: int) -> Call[None]:
    """Sign out in one place; raises NotFound."""
    return Call("DELETE", values.path(_SESSIONS, session_id), nothing)


def _log_out_everywhere() -> Call[Ended]:
    """Sign out in every place, here too."""
    return Call("POST", f"{_AUTH}/logout-all", results.read(Ended))


def _change_password(current_password: str, *, new_password: str) -> Call[None]:
    """Choose another password; every session but this one ends."""
    body = {"current_password": current_password, "new_password": new_password}
    return Call("POST", f"{_AUTH}/password", nothing, body=body)


def _second_factor() -> Call[SecondFactor]:
    """Whether you have a second factor."""
    return Call("GET", _FACTOR, results.read(SecondFactor))


def _begin_second_factor(
    password: str, *, code: str | None = None, passkey: Mapping[str, object] | None = None
) -> Call[Enrolment]:
    """Begin with a second factor: it is asked for once a code is confirmed.

    Whoever has a passkey sends its answer, or a recovery code as `code`.
    """
    body = values.some(password=password, code=code, passkey=passkey)
    return Call("POST", _FACTOR, results.read(Enrolment), body=body)


def _confirm_second_factor(code: str) -> Call[RecoveryCodes]:
    """Have the second factor asked for from now on, and get recovery codes."""
    path = f"{_FACTOR}/confirm"
    return Call("POST", path, results.read(RecoveryCodes), body={"code": code})


def _renew_recovery_codes(password: str, *, code: str) -> Call[RecoveryCodes]:
    """Get new recovery codes in place of those that are left."""
    body = {"password": password, "code": code}
    return Call("POST", f"{_FACTOR}/recovery-codes", results.read(RecoveryCodes), body=body)


def _remove_second_factor(password: str, *, code: str) -> Call[None]:
    """Sign in without a second factor from now on."""
    body = {"password": password, "code": code}
    return Call("POST", f"{_FACTOR}/remove", nothing, body=body)


def _introspect(token: str) -> Call[Introspection]:
    """Whether a key or token of your account works, and whom it acts for; another's never does."""
    read = results.read(Introspection)
    return Call("POST", f"{_AUTH}/introspect", read, body={"token": token}, is_answered_again=True)


class Auth(Resource):
    """Signing in, and what belongs to whoever has; needs an access token where it is about you."""

    sign_in: Final = sync(_sign_in)
    refresh: Final = sync(_refresh)
    revoke: Final = sync(_revoke)
    introspect: Final = sync(_introspect)
    request_password_reset: Final = sync(_request_password_reset)
    reset_password: Final = sync(_reset_password)
    accept_invitation: Final = sync(_accept_invitation)
    list_sessions: Final = sync(_list_sessions)
    end_session: Final = sync(_end_session)
    log_out_everywhere: Final = sync(_log_out_everywhere)
    change_password: Final = sync(_change_password)
    second_factor: Final = sync(_second_factor)
    begin_second_factor: Final = sync(_begin_second_factor)
    confirm_second_factor: Final = sync(_confirm_second_factor)
    renew_recovery_codes: Final = sync(_renew_recovery_codes)
    remove_second_factor: Final = sync(_remove_second_factor)

    @property
    def passkeys(self) -> Passkeys:
        """Passkeys."""
        return Passkeys(self.connection, self.options)


class AsyncAuth(AsyncResource):
    """Signing in, and what belongs to whoever has; needs an access token where it is about you."""

    sign_in: Final = awaited(_sign_in)
    refresh: Final = awaited(_refresh)
    revoke: Final = awaited(_revoke)
    introspect: Final = awaited(_introspect)
    request_password_reset: Final = awaited(_request_password_reset)
    reset_password: Final = awaited(_reset_password)
    accept_invitation: Final = awaited(_accept_invitation)
    list_sessions: Final = awaited(_list_sessions)
    end_session: Final = awaited(_end_session)
    log_out_everywhere: Final = awaited(_log_out_everywhere)
    change_password: Final = awaited(_change_password)
    second_factor: Final = awaited(_second_factor)
    begin_second_factor: Final = awaited(_begin_second_factor)
    confirm_second_factor: Final = awaited(_confirm_second_factor)
    renew_recovery_codes: Final = awaited(_renew_recovery_codes)
    remove_second_factor: Final = awaited(_remove_second_factor)

    @property
    def passkeys(self) -> AsyncPasskeys:
        """Passkeys."""
        return AsyncPasskeys(self.connection, self.options)
