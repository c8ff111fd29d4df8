"""Passwords: choosing another one, with the old one or with a letter.

Owns what ends with the old password: the sessions that it opened, and letters about it. Must not
know hashes, nor how a letter travels.
"""

from typing import Final

from bursar.adapters.mail import Letter
from bursar.core.audit.events import AuditAction
from bursar.core.errors import Unreadable
from bursar.core.people import emails, passwords
from bursar.core.people import tokens as forms
from bursar.core.permissions import Address
from bursar.service.audit import notes, refusals
from bursar.service.people import sign_in, throttles
from bursar.service.people.ports import People
from bursar.service.people.sign_in import Attempt, Gate
from bursar.store.database import Database, WriteTx
from bursar.store.people import letters, members, sessions
from bursar.store.people.members import UserRow

RESET_MS: Final = 3_600_000
_NOBODY: Final = 0


async def change(
    database: Database, attempt: Attempt, *, new: str, session_id: int, people: People, gate: Gate
) -> None:
    """Give somebody who proves the present password another one; all their other sessions end.

    Raises Invalid (`weak_password`), before a try is counted; Unauthenticated, where the present
    password is wrong or was replaced meanwhile (`invalid_credentials`), or the session has ended
    (`invalid_token`); and RateRefused.
    """
    async with gate.enter(), database.read() as tx:
        user = await members.find_user(tx, email=attempt.email)
    name = "" if user is None else user.name
    chosen = _check_new(people, new, email=attempt.email, name=name, param="new_password")
    proven = await sign_in.prove_password(database, attempt, people=people, gate=gate)
    fresh = await people.passwords.hash(chosen)

    async def finish(tx: WriteTx) -> None:
        await sign_in.hold(tx, proven.user, session_id=session_id)
        await throttles.forgive(tx, proven.buckets, wholly=True)
        await _replace(tx, user_id=proven.user.id, password_hash=fresh, but=session_id)
        user_id, action = proven.user.id, AuditAction.PASSWORD_CHANGE
        await notes.note_of_person(tx, user_id=user_id, action=action, target=f"user:{user_id}")

    async with gate.enter():
        await database.transact(finish)


async def request_reset(
    database: Database, *, email: str, address: Address | None, people: People, gate: Gate
) -> None:
    """Write to somebody how they choose a new password, if there is such a person.

    Whoever asks learns nothing: it takes the same steps for an address that nobody has. Raises
    Invalid (`invalid_email`), RateRefused (`too_many_attempts`) from the sixth of a day, and
    Unavailable (`mail_overloaded`).
    """
    people.require_room()
    clean = emails.clean_email(email)

    async def work(tx: WriteTx) -> UserRow | None:
        await throttles.take(tx, throttles.of_resets(people.vault, clean, address))
        user = await members.find_user(tx, email=clean)
        is_there = user is not None and user.disabled_ms is None
        await letters.insert_reset(
            tx,
            user_id=user.id if user is not None and is_there else _NOBODY,
            email=clean,
            token_hash=forms.link_digest(token) or b"",
            expires_ms=tx.now_ms + RESET_MS,
        )
        await refusals.note_reset(
            tx, vault=people.vault, email=clean, user=user if is_there else None
        )
        return user if is_there else None

    token = forms.make_link(people.random_bytes(forms.LINK_BYTES))
    async with gate.enter():
        user = await database.transact(work)
    if user is not None:
        people.send(_letter(people.url, clean, token))


async def reset(database: Database, *, token: str, new: str, people: People, gate: Gate) -> None:
    """Give whoever has a letter's token the password that they choose; all their sessions end.

    A second factor stays. Raises Unreadable (`invalid_reset_token`) for a token that is unknown,
    used, expired, or sent to an address that is not theirs any more, and Invalid (`weak_password`).
    """
    token_hash = forms.link_digest(token)
    if token_hash is None:
        raise _invalid_token()
    async with gate.enter(), database.read() as tx:
        found = await letters.find_reset(tx, token_hash=token_hash)
        user = None if found is None else await members.find_user(tx, user_id=found.user_id)
    if found is None or user is None or found.expires_ms <= database.clock_ms():
        raise _invalid_token()
    chosen = _check_new(people, new, email=user.email, name=user.name, param="password")
    fresh = await people.passwords.hash(chosen)

    async def finish(tx: WriteTx) -> bool:
        await members.lock_user(tx, user_id=user.id)
        taken = await letters.take_reset(tx, token_hash=token_hash)
        current = await members.find_user(tx, user_id=user.id)
        if taken is None or taken.expires_ms <= tx.now_ms or current is None:
            return False
        if current.email != taken.email or current.disabled_ms is not None:
            return False
        await _replace(tx, user_id=user.id, password_hash=fresh, but=None)
        await notes.note_of_person(
            tx,
            user_id=user.id,
            action=AuditAction.PASSWORD_RESET,
            target=f"user:{user.id}",
            actor=f"user:{user.id}",
        )
        return True

    async with gate.enter():
        is_done = await database.transact(finish)
    if not is_done:
        raise _invalid_token()


async def _replace(tx: WriteTx, *, user_id: int, password_hash: str, but: int | None) -> None:
    await members.update_user(tx, user_id=user_id, password_hash=password_hash)
    await sessions.end(tx, user_id=user_id, but=but)
    await letters.delete_resets(tx, user_id=user_id)


def _check_new(people: People, new: str, *, email: str, name: str, param: str) -> str:
    return passwords.check_new(new, email=email, name=name, common=people.common, param=param)


def _letter(url: str, email: str, token: str) -> Letter:
    text = (
        "Somebody, hopefully you, asked for a new password at Bursar.\n\n"
        f"Choose it within an hour: {url}/reset-password#{token}\n\n"
        "If it was not you, do nothing: your password stays as it is.\n"
    )
    return Letter(email, "Choose a new password", text)


def _invalid_token() -> Unreadable:
    message = "The link was used, has expired, or is not whole. Ask for another one."
    return Unreadable("invalid_reset_token", message)
