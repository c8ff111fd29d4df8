"""Sessions: what a sign-in leads to, from the first token to the last.

Owns how tokens take turns. Each refresh token works once and is followed by another; one that
comes a second time was stolen from somebody, so its whole family ends. But for a few seconds the
same answer is given again, for whoever did not get it. Must not know how people prove who they are.
"""

import hmac
from dataclasses import dataclass, field
from typing import Final

from bursar.adapters.vault import Vault
from bursar.core.audit.events import AuditAction, Values
from bursar.core.errors import BursarError, NotFound, Unauthenticated
from bursar.core.people import tokens as forms
from bursar.core.people.tokens import HALF_BYTES, RefreshToken
from bursar.service.audit import notes
from bursar.service.people import tokens
from bursar.service.people.ports import People
from bursar.service.people.tokens import AccessToken, Bearer
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import members, sessions
from bursar.store.people.members import MemberRow
from bursar.store.people.sessions import SessionRow

LIFETIME_MS: Final = 30 * 86_400_000
GRACE_MS: Final = 10_000
MOST_OPEN: Final = 100
_PURPOSE: Final = "next token"
_DEVICE_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Two tokens that were just made, and who may use them where."""

    member: MemberRow
    session_id: int
    access: AccessToken
    refresh_token: str = field(repr=False)
    refresh_expires_ms: int


async def open_session(
    tx: WriteTx, *, people: People, member: MemberRow, device: str, address: str
) -> SignedIn:
    """Begin a session of somebody who has proved who they are.

    Of more than a hundred, the one that was not used for longest ends.
    """
    token = RefreshToken(people.random_bytes(HALF_BYTES), people.random_bytes(HALF_BYTES))
    others = await sessions.list_open(tx, user_id=member.user_id, now_ms=tx.now_ms)
    for each in others[MOST_OPEN - 1 :]:
        await sessions.end(tx, session_id=each.id)
    expires_ms = tx.now_ms + LIFETIME_MS
    session_id = await sessions.insert_session(
        tx,
        user_id=member.user_id,
        account_id=member.account_id,
        family_hash=token.family_hash,
        token_hash=token.turn_hash,
        device=clean_device(device),
        address=address,
        expires_ms=expires_ms,
    )
    _note(
        tx,
        AuditAction.SESSION_SIGN_IN,
        session_id,
        account_id=member.account_id,
        user_id=member.user_id,
        after={"user_id": member.user_id, "device": clean_device(device)},
    )
    return await _hand_out(tx, people, member, session_id, token, expires_ms)


async def is_there(tx: ReadTx, *, token: str, now_ms: int) -> bool:
    """Whether a token, whichever of the two it is, is of a session that is open.

    Asked before anything is written: what anybody can make up takes no write.
    """
    given = forms.parse_refresh(token)
    if given is not None:
        row = await sessions.find_family(tx, family_hash=given.family_hash)
    else:
        raw = token.encode("latin-1", "replace")
        bearer = await tokens.find_bearer(tx, token=raw, now_ms=now_ms)
        session_id = 0 if bearer is None else bearer.session_id
        row = await sessions.find_session(tx, session_id=session_id)
    return row is not None and is_open(row, now_ms)


async def refresh(
    tx: WriteTx, *, people: People, token: str, account_id: int | None = None
) -> SignedIn | BursarError:
    """Return the tokens after this one, for the same account or another of the same person.

    A refusal is returned, not raised, because it may have ended the session: Unauthenticated
    `invalid_refresh_token` (unknown, ended, expired, or of somebody who is no member any more) and
    `refresh_reused`, which ends the family. For another account that does not let them in,
    `invalid_refresh_token` is raised: the token has not been used, and goes on in its own.
    """
    given = forms.parse_refresh(token)
    row = None
    if given is not None:
        row = await sessions.lock_family(tx, family_hash=given.family_hash)
    if given is None or row is None or row.key_id is not None or not is_open(row, tx.now_ms):
        return invalid()
    following = await take_turn(tx, people=people, row=row, given=given)
    if isinstance(following, BursarError):
        return following
    wanted = account_id or row.account_id
    member = await members.find_member(tx, account_id=wanted, user_id=row.user_id)
    if member is None or not member.is_enabled:
        if wanted != row.account_id:
            raise invalid()
        await sessions.end(tx, session_id=row.id)
        return invalid()
    if wanted != row.account_id:
        await sessions.set_account(tx, session_id=row.id, account_id=wanted)
        _note(
            tx,
            AuditAction.SESSION_SWITCH,
            row.id,
            account_id=wanted,
            user_id=row.user_id,
            after={"user_id": row.user_id, "device": row.device},
        )
    expires_ms = tx.now_ms + LIFETIME_MS
    return await _hand_out(tx, people, member, row.id, following, expires_ms)


async def revoke(tx: WriteTx, *, token: str) -> None:
    """End the session of a token, whichever of the two it is; of no session's, do nothing."""
    given = forms.parse_refresh(token)
    if given is not None:
        row = await sessions.lock_family(tx, family_hash=given.family_hash)
        if row is not None and await sessions.end(tx, session_id=row.id):
            _note_end(tx, row.id, account_id=row.account_id, user_id=row.user_id)
        return
    bearer = await tokens.find_bearer(
        tx, token=token.encode("latin-1", "replace"), now_ms=tx.now_ms
    )
    if bearer is not None and await sessions.end(tx, session_id=bearer.session_id):
        own = {"account_id": bearer.account_id, "user_id": bearer.user_id}
        _note_end(tx, bearer.session_id, **own)


async def end_all(tx: WriteTx, *, user_id: int) -> int:
    """End every session of a person, in every account; how many they were."""
    ended = await sessions.end(tx, user_id=user_id)
    before = {"sessions": ended}
    await notes.note_of_person(
        tx,
        user_id=user_id,
        action=AuditAction.SESSION_END_ALL,
        target=f"user:{user_id}",
        before=before,
    )
    return ended


async def end_one(tx: WriteTx, *, user_id: int, session_id: int) -> None:
    """End one of a person's sessions; raises NotFound."""
    if not await sessions.end(tx, user_id=user_id, session_id=session_id):
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    _note_end(tx, session_id, account_id=tx.origin.account_id, user_id=user_id)


async def list_open(tx: ReadTx, *, user_id: int, now_ms: int) -> list[SessionRow]:
    """Return a person's sessions, the latest used first."""
    return await sessions.list_open(tx, user_id=user_id, now_ms=now_ms)


def is_open(row: SessionRow, now_ms: int) -> bool:
    """Whether a session is neither ended nor expired."""
    return row.ended_ms is None and row.expires_ms > now_ms


async def take_turn(
    tx: WriteTx, *, people: People, row: SessionRow, given: RefreshToken
) -> RefreshToken | BursarError:
    """Return the token after a good one of an open session, whose row is locked.

    Any other ends the session: Unauthenticated (`refresh_reused`), returned so that it does.
    """
    following = await _next(tx, people, row, given)
    if following is None:
        if await sessions.end(tx, session_id=row.id):
            target = f"session:{row.id}"
            reuse = AuditAction.SESSION_REUSE
            notes.note(tx, account_id=row.account_id, action=reuse, target=target)
        message = "This refresh token was used before. The session has ended; sign in again."
        return Unauthenticated("refresh_reused", message)
    return following


def _note_end(tx: WriteTx, session_id: int, *, account_id: int, user_id: int) -> None:
    action = AuditAction.SESSION_END
    _note(tx, action, session_id, account_id=account_id, user_id=user_id)


def _note(
    tx: WriteTx,
    action: AuditAction,
    session_id: int,
    *,
    account_id: int,
    user_id: int,
    after: Values | None = None,
) -> None:
    """Note what a person did with a session; a key's session has no person (0)."""
    notes.note(
        tx,
        account_id=account_id,
        action=action,
        target=f"session:{session_id}",
        after=after,
        actor=f"user:{user_id}" if user_id else None,
    )


async def _next(
    tx: WriteTx, people: People, row: SessionRow, given: RefreshToken
) -> RefreshToken | None:
    """The token after a good one; None for one that should not be around any more."""
    seal = Vault(given.family + given.turn)
    if hmac.compare_digest(given.turn_hash, row.token_hash):
        following = given.next(people.random_bytes(HALF_BYTES))
        await sessions.turn(
            tx,
            before=row,
            token_hash=following.turn_hash,
            sealed_next=seal.seal(following.turn, purpose=_PURPOSE, about=str(row.id)),
            grace_ms=GRACE_MS,
            expires_ms=tx.now_ms + LIFETIME_MS,
        )
        return following
    is_previous = hmac.compare_digest(given.turn_hash, row.previous_hash or b"")
    if not is_previous or tx.now_ms >= (row.previous_until_ms or 0) or row.sealed_next is None:
        return None
    turn = seal.open(row.sealed_next, purpose=_PURPOSE, about=str(row.id))
    return None if turn is None else given.next(turn)


async def _hand_out(
    tx: WriteTx,
    people: People,
    member: MemberRow,
    session_id: int,
    token: RefreshToken,
    expires_ms: int,
) -> SignedIn:
    bearer = Bearer(member.user_id, member.account_id, session_id, token.seal)
    access = await tokens.issue(
        tx, bearer=bearer, vault=people.vault, random_bytes=people.random_bytes
    )
    return SignedIn(member, session_id, access, token.text, expires_ms)


def clean_device(text: str) -> str:
    """Return what a program calls itself, as far as it can be shown."""
    return "".join(letter for letter in text if letter.isprintable())[:_DEVICE_LENGTH]


def invalid() -> Unauthenticated:
    """The refusal of a refresh token that is unknown, ended or expired."""
    message = "The refresh token is not valid any more. Sign in again."
    return Unauthenticated("invalid_refresh_token", message)
