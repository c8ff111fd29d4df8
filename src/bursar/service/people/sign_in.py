"""Signing in: from an address and a password, and a code where one is needed, to a session.

Owns the order of the steps, so that it takes the same steps and the same time whoever it is: count
the try, hash, and only then look whether it was good. Must not know HTTP.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from bursar.adapters.passkeys import Credential
from bursar.core.errors import BursarError, Forbidden, Unauthenticated
from bursar.core.people import emails, passwords
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
    is_known: bool


async def sign_in(database: Database, attempt: Attempt, *, people: People, gate: Gate) -> SignedIn:
    """Begin a session in the account that is asked for, or in the person's first.

    Raises Unauthenticated `invalid_credentials` for whatever is wrong with address, password,
    person or account; `second_factor_required` and `invalid_code` after a right password;
    RateRefused `too_many_attempts`.
    """
    proven = await prove_password(database, attempt, people=people, gate=gate)

    async def finish(tx: WriteTx) -> SignedIn | BursarError:
        member = await _find_member(tx, proven.user, attempt.account_id)
        where = throttles.place(attempt.address)
        if member is None:
            return _wrong()
        refused = await proofs.check_second(
            tx,
            people=people,
            user_id=member.user_id,
            code=attempt.code,
            passkey=attempt.passkey,
            known_place=where if proven.is_known else "",
        )
        if refused is not None:
            if refused.code == "second_factor_required":
                await throttles.forgive(tx, proven.buckets, wholly=False)
            return refused
        await throttles.forgive(tx, proven.buckets, wholly=True)
        return await sessions.open_session(
            tx, people=people, member=member, device=attempt.device, address=where
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
        fresh = await people.passwords.hash(given)
        async with gate.enter(), database.write() as tx:
            await members.update_user(tx, user_id=user.id, password_hash=fresh)
        user = replace(user, password_hash=fresh)
    # Tries from where nobody of this name has signed in before are counted in one bucket more.
    return Proven(user, buckets, is_known=len(buckets) == throttles.OF_THE_KNOWN)


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

    With their password, and their second factor where they have one. Whoever has no password must
    have signed in within ten minutes instead (Forbidden `sign_in_again`). Raises what
    `prove_password` and `proofs.check_second` refuse with.
    """
    async with gate.enter(), database.read() as tx:
        user = await members.find_user(tx, email=attempt.email)
        session = await store_sessions.find_session(tx, session_id=session_id)
    buckets: list[Bucket] = []
    if user is None or user.password_hash:
        buckets = (await prove_password(database, attempt, people=people, gate=gate)).buckets
    elif session is None or database.clock_ms() - session.created_ms > FRESH_MS:
        message = "You signed in too long ago for this. Sign in again, then do it."
        raise Forbidden("sign_in_again", message)

    async def finish(tx: WriteTx) -> T | BursarError:
        if buckets:
            await throttles.forgive(tx, buckets, wholly=True)
        refused = await proofs.check_second(
            tx,
            people=people,
            user_id=user.id if user is not None else 0,
            code=attempt.code,
            passkey=attempt.passkey,
            known_place=SIGNED_IN,
        )
        return refused if refused is not None else await work(tx)

    async with _noted(database, attempt, people=people, gate=gate):
        return await in_turn(database, gate, finish)


def _noted(
    database: Database, attempt: Attempt, *, people: People, gate: Gate
) -> AbstractAsyncContextManager[refusals.About]:
    email, address = attempt.email, attempt.address
    return refusals.noted(database, gate.enter, vault=people.vault, email=email, address=address)


async def _find_member(tx: WriteTx, user: UserRow, account_id: int | None) -> MemberRow | None:
    """The person in the account, as they are now: the hash took a while."""
    current = await members.find_user(tx, user_id=user.id)
    if current is None or current.password_hash != user.password_hash:
        return None
    return await choose_member(tx, user_id=user.id, account_id=account_id)


async def choose_member(tx: WriteTx, *, user_id: int, account_id: int | None) -> MemberRow | None:
    """Return a person in the account that is asked for, or in their first that lets them in."""
    for member in await members.list_memberships(tx, user_id=user_id):
        if member.is_enabled and account_id in {None, member.account_id}:
            return member
    return None


async def in_turn(
    database: Database, gate: Gate, work: Callable[[WriteTx], Awaitable[T | BursarError]]
) -> T:
    """Return what `work` returns, done in one transaction; a refusal is raised once it is kept."""
    async with gate.enter():
        found = await database.transact(work)
    if isinstance(found, BursarError):
        raise found
    return found


def _wrong() -> Unauthenticated:
    message = "The address or the password is wrong."
    return Unauthenticated("invalid_credentials", message)
