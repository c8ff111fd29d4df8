"""Signing in: from an address and a password, and a code where one is needed, to a session.

Owns the order of the steps, so that it takes the same steps and the same time whoever it is: count
the try, hash, and only then look whether it was good. Must not know HTTP.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol, TypeVar

from bursar.adapters.passkeys import Credential
from bursar.core.errors import BursarError, Forbidden, Unauthenticated
from bursar.core.people import emails, passwords
from bursar.core.people import tokens as forms
from bursar.core.permissions import Address
from bursar.service.audit import refusals
from bursar.service.people import passkeys, proofs, sessions, throttles
from bursar.service.people.ports import People
from bursar.service.people.second_factors import SIGNED_IN
from bursar.service.people.sessions import SignedIn
from bursar.service.people.throttles import Bucket
from bursar.store.database import Database, WriteTx
from bursar.store.people import members
from bursar.store.people import sessions as store_sessions
from bursar.store.people.members import MemberRow, UserRow
from bursar.store.tenants import accounts

T = TypeVar("T")
# How long a sign-in stands for a password of somebody who has none.
FRESH_MS: Final = 10 * 60_000


class Gate(Protocol):
    """Bounds how many use the database at once."""

    def enter(self) -> AbstractAsyncContextManager[None]:
        """Wait for a turn and keep it for the block."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """From which address and program somebody signs in."""

    address: Address | None
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What somebody says who they are, and from where."""

    email: str
    password: str = field(repr=False)
    address: Address | None
    code: str | None = field(default=None, repr=False)
    passkey: Credential | None = field(default=None, repr=False)
    account_id: int | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class Proven:
    """Somebody whose password was right, and the tries that may be taken back."""

    user: UserRow
    buckets: list[Bucket]


async def sign_in(database: Database, attempt: Attempt, *, people: People, gate: Gate) -> SignedIn:
    """Begin a session in the account that is asked for, or in the person's first.

    Raises Unauthenticated `invalid_credentials` for whatever is wrong with address, password,
    person or account; `second_factor_required` and `invalid_code` after a right password;
    RateRefused `too_many_attempts`.
    """
    proven = await prove_password(database, attempt, people=people, gate=gate)

    async def finish(tx: WriteTx) -> SignedIn | BursarError:
        # Before anything else: a new password waits for this session, or is seen here.
        await hold(tx, proven.user)
        member = await choose_member(tx, user_id=proven.user.id, account_id=attempt.account_id)
        if member is None:
            return _wrong()
        user_id, address = member.user_id, attempt.address
        refused = await proofs.check_second(
            tx,
            people=people,
            user_id=user_id,
            code=attempt.code,
            passkey=attempt.passkey,
            known_place=await throttles.known_place(
                tx, user_id=user_id, address=address, now_ms=tx.now_ms
            ),
        )
        if refused is not None:
            if refused.code == "second_factor_required":
                await throttles.forgive(tx, proven.buckets, wholly=False)
            return refused
        await throttles.forgive(tx, proven.buckets, wholly=True)
        return await sessions.open_session(
            tx,
            people=people,
            member=member,
            device=attempt.device,
            address=throttles.place(address),
        )

    async with _noted(database, attempt, people=people, gate=gate):
        return await in_turn(database, gate, finish)


async def with_passkey(
    database: Database,
    passkey: Credential,
    *,
    where: Whereabouts,
    account_id: int | None,
    people: People,
    gate: Gate,
) -> SignedIn:
    """Begin a session with a passkey alone, whose device has checked that it is its owner's hand.

    That is something they have and something they know or are: no other factor is asked for. Raises
    Unauthenticated `invalid_passkey`, `verification_required`, and RateRefused.
    """

    async def finish(tx: WriteTx) -> SignedIn | BursarError:
        buckets = throttles.of_proofs(people.vault, where.address)
        await throttles.take(tx, buckets)
        shown = await passkeys.check(tx, people=people, credential=passkey)
        if isinstance(shown, BursarError):
            return shown
        if not shown.is_verified:
            message = "Unlock the passkey with its PIN, fingerprint or face, or use a password."
            return Unauthenticated("verification_required", message)
        member = await choose_member(tx, user_id=shown.user_id, account_id=account_id)
        if member is None:
            return passkeys.wrong()
        await throttles.forgive(tx, buckets, wholly=False)
        return await sessions.open_session(
            tx,
            people=people,
            member=member,
            device=where.device,
            address=throttles.place(where.address),
        )

    vault, address = people.vault, where.address
    async with refusals.noted(database, gate.enter, vault=vault, email="", address=address):
        return await in_turn(database, gate, finish)


async def prove_password(
    database: Database, attempt: Attempt, *, people: People, gate: Gate
) -> Proven:
    """Return who has this address and this password; the try stays counted.

    Raises Unauthenticated (`invalid_credentials`) and RateRefused (`too_many_attempts`).
    """
    async with _noted(database, attempt, people=people, gate=gate):
        return await _prove_password(database, attempt, people=people, gate=gate)


async def _prove_password(
    database: Database, attempt: Attempt, *, people: People, gate: Gate
) -> Proven:
    email = emails.find_email(attempt.email) or ""
    given = passwords.normalise(attempt.password)

    async def count(tx: WriteTx) -> tuple[UserRow | None, list[Bucket]]:
        user = await members.find_user(tx, email=email)
        buckets = await throttles.of_sign_in(
            tx,
            vault=people.vault,
            email=email or attempt.email[:255],
            user_id=0 if user is None else user.id,
            address=attempt.address,
            now_ms=tx.now_ms,
        )
        await throttles.take(tx, buckets)
        return user, buckets

    async with gate.enter():
        user, buckets = await database.transact(count)
    is_possible = user is not None and len(given) <= passwords.LONGEST
    known = user.password_hash if user is not None and is_possible else None
    is_right = await people.passwords.is_right(known, given[: passwords.LONGEST])
    if not is_right or user is None or user.disabled_ms is not None:
        raise _wrong()
    if people.passwords.is_old(user.password_hash):
        user = await _renew_hash(database, user, given, people=people, gate=gate)
    return Proven(user, buckets)


async def _renew_hash(
    database: Database, user: UserRow, given: str, *, people: People, gate: Gate
) -> UserRow:
    """The person with a hash as they are made today, of the password that was proven.

    Where there is another hash by now, the same password must be right for it, too.
    """
    fresh = await people.passwords.hash(given)
    async with gate.enter(), database.write() as tx:
        before = user.password_hash
        if await members.replace_hash(tx, user_id=user.id, before=before, after=fresh):
            return replace(user, password_hash=fresh)
        now = await members.find_user(tx, user_id=user.id)
    if now is None or not await people.passwords.is_right(now.password_hash, given):
        raise _wrong()
    return now


async def prove_again(
    database: Database,
    attempt: Attempt,
    work: Callable[[WriteTx], Awaitable[T | BursarError]],
    *,
    session_id: int,
    people: People,
    gate: Gate,
) -> T:
    """Return what `work` returns, for somebody signed in who has proved once more who they are.

    As `prove_first_again`, and with their second factor where they have one. Raises what
    `proofs.check_second` refuses with, too.
    """

    async def both(tx: WriteTx, user_id: int) -> T | BursarError:
        refused = await proofs.check_second(
            tx,
            people=people,
            user_id=user_id,
            code=attempt.code,
            passkey=attempt.passkey,
            known_place=SIGNED_IN,
        )
        return refused if refused is not None else await work(tx)

    return await prove_first_again(
        database, attempt, both, session_id=session_id, people=people, gate=gate
    )


async def prove_first_again(
    database: Database,
    attempt: Attempt,
    work: Callable[[WriteTx, int], Awaitable[T | BursarError]],
    *,
    session_id: int,
    people: People,
    gate: Gate,
) -> T:
    """Return what `work` returns for the id of somebody signed in, who has proved it once more.

    With their password. Whoever has none must have signed in within ten minutes instead (Forbidden
    `sign_in_again`). Raises what `prove_password` and `hold` refuse with.
    """
    async with gate.enter(), database.read() as tx:
        user = await members.find_user(tx, email=attempt.email)
        session = await store_sessions.find_session(tx, session_id=session_id)
    buckets: list[Bucket] = []
    if user is None or user.password_hash:
        proven = await prove_password(database, attempt, people=people, gate=gate)
        user, buckets = proven.user, proven.buckets
    elif session is None or database.clock_ms() - session.created_ms > FRESH_MS:
        message = "You signed in too long ago for this. Sign in again, then do it."
        raise Forbidden("sign_in_again", message)
    by = user

    async def finish(tx: WriteTx) -> T | BursarError:
        await hold(tx, by, session_id=session_id)
        if buckets:
            await throttles.forgive(tx, buckets, wholly=True)
        return await work(tx, by.id)

    async with _noted(database, attempt, people=people, gate=gate):
        return await in_turn(database, gate, finish)


def _noted(
    database: Database, attempt: Attempt, *, people: People, gate: Gate
) -> AbstractAsyncContextManager[refusals.About]:
    email, address = attempt.email, attempt.address
    return refusals.noted(database, gate.enter, vault=people.vault, email=email, address=address)


async def hold(tx: WriteTx, user: UserRow, *, session_id: int | None = None) -> None:
    """Keep others from changing somebody who has proved who they are, until commit.

    The hash took a while: raises Unauthenticated (`invalid_credentials`) where they have another
    password by now, and `invalid_token` where the session that they act with has ended.
    """
    await members.lock_user(tx, user_id=user.id)
    now = await members.find_user(tx, user_id=user.id)
    if now is None or now.password_hash != user.password_hash:
        raise _wrong()
    if session_id is not None:
        session = await store_sessions.find_session(tx, session_id=session_id)
        if session is None or not sessions.is_open(session, tx.now_ms):
            message = "Your session has ended meanwhile. Sign in again."
            raise Unauthenticated("invalid_token", message)


async def choose_member(tx: WriteTx, *, user_id: int, account_id: int | None) -> MemberRow | None:
    """Return a person in the account that is asked for, or in their first that lets them in.

    Active accounts go first: in others there is nothing to do.
    """
    found = [
        member
        for member in await members.list_memberships(tx, user_id=user_id)
        if member.is_enabled and account_id in {None, member.account_id}
    ]
    for member in found:
        account = await accounts.find_account(tx, account_id=member.account_id)
        if account is not None and account.status == "active":
            return member
    return found[0] if found else None


async def in_turn(
    database: Database, gate: Gate, work: Callable[[WriteTx], Awaitable[T | BursarError]]
) -> T:
    """Return what `work` returns, done in one transaction; a refusal is raised once it is kept."""
    async with gate.enter():
        found = await database.transact(work)
    if isinstance(found, BursarError):
        raise found
    return found


async def with_refresh_token(
    database: Database,
    token: str,
    work: Callable[[WriteTx], Awaitable[T | BursarError]],
    *,
    gate: Gate,
) -> T:
    """Return what `work` returns for a refresh token of an open session.

    Raises Unauthenticated (`invalid_refresh_token`) for any other text, without a write.
    """
    if forms.parse_refresh(token) is None:
        raise sessions.invalid()
    async with gate.enter(), database.read() as tx:
        is_there = await sessions.is_there(tx, token=token, now_ms=database.clock_ms())
    if not is_there:
        raise sessions.invalid()
    return await in_turn(database, gate, work)


async def revoke(database: Database, token: str, *, gate: Gate) -> bool:
    """End the session of a token, whichever of the two it is; False, without a write, for none."""
    async with gate.enter(), database.read() as tx:
        is_there = await sessions.is_there(tx, token=token, now_ms=database.clock_ms())
    if is_there:
        await in_turn(database, gate, partial(sessions.revoke, token=token))
    return is_there


def _wrong() -> Unauthenticated:
    message = "The address or the password is wrong."
    return Unauthenticated("invalid_credentials", message)
