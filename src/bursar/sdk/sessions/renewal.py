"""A sign-in that goes on by itself: its access token is renewed before it expires.

Owns when that happens. Of all threads, tasks and programs that share a sign-in one renews and the
others take what it got, since a refresh token is good for once. By this machine's clock alone, so
that one which differs from the server's does no harm. Like a call's flow it neither waits nor
sends.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from bursar.sdk import configuration, flow
from bursar.sdk.calls import Call
from bursar.sdk.configuration import Options
from bursar.sdk.errors import (
    ConfigurationError,
    ConnectionFailed,
    InvalidAnswer,
    RateLimited,
    ServerFailed,
    TimedOut,
    Unauthenticated,
)
from bursar.sdk.flow import Steps, Wait
from bursar.sdk.resources.people.auth import Auth
from bursar.sdk.resources.people.sign_ins import SignIn
from bursar.sdk.sessions import stores
from bursar.sdk.sessions.stores import Keep, Release, SignedIn, Store
from bursar.sdk.values import Secret

T = TypeVar("T")

# How long before its end a token is renewed: a request is on its way for less.
_AHEAD_S: Final = 60.0
_MOST_AHEAD: Final = 0.25
_POLL_S: Final = 0.02
_LONGEST_TURN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody signs in with."""

    email: str
    password: str = field(repr=False)
    code: str | None = field(default=None, repr=False)
    account_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Unsaved:
    """Tokens that could not be kept, and the access token of those that are still kept instead."""

    fresh: SignedIn
    used: Secret


class Session:
    """A sign-in, shared by all clients that were made from it."""

    def __init__(self, store: Store, base_url: str, held: SignedIn | None = None) -> None:
        self._store = store
        self._held = held
        self._unsaved: _Unsaved | None = None
        self.base_url: str = base_url

    @property
    def email(self) -> str:
        """Who has signed in; raises ConfigurationError if nobody has."""
        return self._current().email

    @property
    def account_id(self) -> int:
        """In which account; raises ConfigurationError if nobody has signed in."""
        return self._current().account_id

    def bearer(self, options: Options) -> Steps[Secret]:
        """Return an access token that is good for a while yet.

        Raises Unauthenticated once the sign-in is over, ConfigurationError after signing out.
        """
        held = self._current()
        if time.time() < held.renew_from_s:
            return held.access_token
        if time.time() >= held.access_until_s:
            return (yield from self._renew(held, options)).access_token
        # There is time left to renew it: this call need neither wait nor fail for that.
        try:
            release = self._store.try_lock()
            if release is None:
                return held.access_token
            once = replace(options, max_retries=0)
            return (yield from self._in_turn(held, once, release)).access_token
        except (ConnectionFailed, InvalidAnswer, ServerFailed, RateLimited):
            return held.access_token
        except ConfigurationError:
            # Where it is kept cannot be used just now; or it was found there to be another's.
            if self._held is not held:
                raise
            return held.access_token

    def renew(self, options: Options, *, refused: Secret) -> Steps[Secret]:
        """Return another access token than one that the server has refused."""
        held = self._current()
        if held.access_token != refused:
            return held.access_token
        return (yield from self._renew(held, options)).access_token

    def end(self, options: Options) -> Steps[None]:
        """Sign out: here in any case, and at the server if it answers."""
        held = self._held or self._store.load()
        self._held = self._unsaved = None
        try:
            self._store.forget()
        finally:
            if held is not None:
                call = Auth.revoke.describe(held.refresh_token)
                yield from _value(call, _anonymous(options, held.base_url))

    def _current(self) -> SignedIn:
        if self._held is None:
            self._held = self._store.load()
        if self._held is None:
            raise ConfigurationError("Nobody is signed in here any more: sign in again.")
        if self._held.base_url != self.base_url:
            raise ConfigurationError(
                f"Somebody has signed in at {self._held.base_url} since: make another client."
            )
        return self._held

    def _renew(self, before: SignedIn, options: Options) -> Steps[SignedIn]:
        release = self._store.try_lock()
        until_s = time.monotonic() + _LONGEST_TURN_S
        while release is None:
            if time.monotonic() > until_s:
                raise TimedOut("Another program is renewing the sign-in, and does not come to end.")
            yield Wait(_POLL_S)
            release = self._store.try_lock()
        return (yield from self._in_turn(before, options, release))

    def _in_turn(self, before: SignedIn, options: Options, release: Release) -> Steps[SignedIn]:
        try:
            held = self._kept()
            if held is not None and held.access_token == before.access_token:
                held = yield from self._refresh(held, options)
        finally:
            release()
        self._held = held
        return self._current()

    def _refresh(self, held: SignedIn, options: Options) -> Steps[SignedIn]:
        call = Auth.refresh.describe(held.refresh_token)
        try:
            found = yield from _value(call, _anonymous(options, held.base_url))
        except Unauthenticated:
            self._held = self._unsaved = None
            with suppress(ConfigurationError):
                self._store.forget()
            raise
        self._held = fresh = _signed_in(found, base_url=held.base_url, email=held.email)
        self._save(fresh, used=self._unsaved.used if self._unsaved else held.access_token)
        return fresh

    def _kept(self) -> SignedIn | None:
        """What is kept; where that could not be replaced by what is newer, the newer."""
        kept, newer = self._store.load(), self._unsaved
        if newer is None or kept is None or kept.access_token != newer.used:
            self._unsaved = None
            return kept
        self._save(newer.fresh, used=newer.used)
        return newer.fresh

    def _save(self, fresh: SignedIn, *, used: Secret) -> None:
        """Keep tokens in place of those that are used up; if that fails, here alone for now."""
        try:
            self._store.save(fresh)
            self._unsaved = None
        except ConfigurationError as error:
            self._unsaved = _Unsaved(fresh, used)
            said = "%s The renewed sign-in is known to this program alone."
            logging.getLogger("bursar").warning(said, error)

    def __repr__(self) -> str:
        return f"<sign-in at {self.base_url}>"


def sign_in(asked: Asked, options: Options, *, name: str, keep: Keep | None) -> Steps[Session]:
    """Sign in, and keep it under that name; raises Unauthenticated and RateLimited.

    Raises ConfigurationError, before anything is sent, for a profile that has a key.
    """
    if keep is not None:
        configuration.require_no_key(name)
    store = stores.make(name, keep)
    call = Auth.sign_in.describe(
        asked.email, asked.password, code=asked.code, account_id=asked.account_id
    )
    found = yield from _value(call, _anonymous(options, options.base_url))
    held = _signed_in(found, base_url=options.base_url, email=asked.email)
    store.save(held)
    return Session(store, options.base_url, held)


def go_on(
    access_token: Secret, refresh_token: Secret, *, expires_in_s: float, base_url: str
) -> Session:
    """Return a session of tokens that were got in another way, kept as long as the program runs.

    Whose they are is not known to it.
    """
    until = _until(expires_in_s)
    held = SignedIn(base_url, "", 0, 0, 0, "", access_token, refresh_token, *until)
    store = stores.MemoryStore()
    store.save(held)
    return Session(store, base_url, held)


def _value(call: Call[T], options: Options) -> Steps[T]:
    return call.read((yield from flow.exchange(call, options)))


def _anonymous(options: Options, base_url: str) -> Options:
    """The same way of calling, with nothing but the call's own secret."""
    return replace(options, base_url=base_url, api_key=None, session=None)


def _signed_in(found: SignIn, *, base_url: str, email: str) -> SignedIn:
    renew_from_s, access_until_s = _until(found.expires_in)
    return SignedIn(
        base_url=base_url,
        email=email,
        account_id=found.account_id,
        user_id=found.user_id,
        session_id=found.session_id,
        role=found.role,
        access_token=Secret(found.access_token),
        refresh_token=Secret(found.refresh_token),
        renew_from_s=renew_from_s,
        access_until_s=access_until_s,
    )


def _until(expires_in_s: float) -> tuple[float, float]:
    """From when on, by this machine's clock, an access token is renewed, and until when good."""
    now_s = time.time()
    ahead_s = min(_AHEAD_S, expires_in_s * _MOST_AHEAD)
    return now_s + expires_in_s - ahead_s, now_s + expires_in_s
