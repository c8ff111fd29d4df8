"""Passkeys: yours, and what a browser needs to make one or to sign in with it.

What the browser takes and answers is WebAuthn's JSON, which goes through here as it is.
"""

from collections.abc import Mapping
from typing import Any, Final

from bursar.sdk import results, values
from bursar.sdk.calls import Call, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, sync
from bursar.sdk.resources.people.sign_ins import SignIn
from bursar.sdk.results import Listing, Moment, Result, SecretText

_PASSKEYS = "/v1/auth/passkeys"


class Passkey(Result):
    """One of your passkeys; one that is synced is on several devices."""

    id: int
    name: str
    is_synced: bool
    created_at: Moment
    last_used_at: Moment | None


class PasskeyOptions(Result):
    """What a browser's `navigator.credentials` takes as its `publicKey`, until `expires_at`."""

    options: dict[str, Any]
    expires_at: Moment


class NewPasskey(Result):
    """A passkey that was just made, and recovery codes if it is your first second factor."""

    passkey: Passkey
    recovery_codes: tuple[SecretText, ...] | None


def _begin_sign_in() -> Call[PasskeyOptions]:
    """Begin to sign in with a passkey: what the browser is to ask for."""
    read = results.read(PasskeyOptions)
    return Call("POST", f"{_PASSKEYS}/challenge", read, body={}, is_anonymous=True)


def _sign_in(passkey: Mapping[str, object], *, account_id: int | None = None) -> Call[SignIn]:
    """Get tokens for what the browser answered; raises Unauthenticated."""
    body = values.some(passkey=passkey, account_id=account_id)
    return Call("POST", f"{_PASSKEYS}/login", results.read(SignIn), body=body, is_anonymous=True)


def _list() -> Call[Listing[Passkey]]:
    """Your passkeys, oldest first."""
    return Call("GET", _PASSKEYS, results.read_list(Passkey, "passkeys"))


def _begin(
    *,
    password: str | None = None,
    code: str | None = None,
    passkey: Mapping[str, object] | None = None,
) -> Call[PasskeyOptions]:
    """Begin with a new passkey: what the browser is to make.

    Asks for your password once more, if you have one, and for your second factor, if you have one:
    a `code`, or what the browser answered for a `passkey`.
    """
    body = values.some(password=password, code=code, passkey=passkey)
    return Call("POST", f"{_PASSKEYS}/options", results.read(PasskeyOptions), body=body)


def _create(name: str, *, credential: Mapping[str, object]) -> Call[NewPasskey]:
    """Keep the passkey that the browser has made."""
    body = {"name": name, "credential": credential}
    return Call("POST", _PASSKEYS, results.read(NewPasskey), body=body)


def _rename(passkey_id: int, *, name: str) -> Call[Passkey]:
    """Call a passkey something else; raises NotFound."""
    path = values.path(_PASSKEYS, passkey_id)
    return Call("PATCH", path, results.read(Passkey), body={"name": name})


def _remove(
    passkey_id: int,
    *,
    password: str | None = None,
    code: str | None = None,
    passkey: Mapping[str, object] | None = None,
) -> Call[None]:
    """Forget a passkey; asks for what `begin` asks for."""
    body = values.some(password=password, code=code, passkey=passkey)
    return Call("POST", f"{values.path(_PASSKEYS, passkey_id)}/remove", nothing, body=body)


class Passkeys(Resource):
    """Passkeys."""

    begin_sign_in: Final = sync(_begin_sign_in)
    sign_in: Final = sync(_sign_in)
    list: Final = sync(_list)
    begin: Final = sync(_begin)
    create: Final = sync(_create)
    rename: Final = sync(_rename)
    remove: Final = sync(_remove)


class AsyncPasskeys(AsyncResource):
    """Passkeys."""

    begin_sign_in: Final = awaited(_begin_sign_in)
    sign_in: Final = awaited(_sign_in)
    list: Final = awaited(_list)
    begin: Final = awaited(_begin)
    create: Final = awaited(_create)
    rename: Final = awaited(_rename)
    remove: Final = awaited(_remove)
