"""Refused sign-ins in the audit log: enough to be noticed, never so many that they fill the disk.

Owns how many are noted. Of one person from one place with one reason it is one an hour, and of one
account's log no more than a hundred an hour, whoever tries. Takes the same steps for people who are
nobody. Must not know why somebody is refused.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from bursar.adapters.vault import Vault
from bursar.core.audit.events import OPERATOR_LOG, AuditAction
from bursar.core.errors import Forbidden, RateRefused, Unauthenticated
from bursar.core.people import emails
from bursar.core.permissions import Address
from bursar.service.audit import notes
from bursar.service.people import throttles
from bursar.store.database import Database, WriteTx
from bursar.store.people import members, tries
from bursar.store.people.members import UserRow

MOST_AN_HOUR: Final = 100
_HOUR_MS: Final = 3_600_000
_NOBODY: Final = 0


@dataclass(slots=True)
class About:
    """Whom a sign-in is about: what they say that they are, or what turns out; "" for nobody."""

    email: str


@asynccontextmanager
async def noted(
    database: Database,
    enter: Callable[[], AbstractAsyncContextManager[None]],
    *,
    vault: Vault,
    email: str,
    address: Address | None,
) -> AsyncIterator[About]:
    """Note that somebody is refused in the block, in a transaction of its own.

    `email` is what they say that they are, or "" where they do not say it; the block may set it.
    """
    about = About(email)
    try:
        yield about
    except (Unauthenticated, Forbidden, RateRefused) as refused:
        work = partial(
            _note_refusal,
            vault=vault,
            email=emails.find_email(about.email) or "",
            place=throttles.place(address),
            reason=refused.code,
        )
        async with enter():
            await database.transact(work)
        raise


async def note_reset(tx: WriteTx, *, vault: Vault, email: str, user: UserRow | None) -> None:
    """Note that a letter for a new password was asked for, in the first account of who it is."""
    account_id = await _find_log(tx, user)
    if await _has_room(tx, vault, account_id):
        notes.note(
            tx,
            account_id=account_id,
            action=AuditAction.PASSWORD_REQUEST_RESET,
            target=_target(user),
            after={"email": email},
        )


async def _note_refusal(tx: WriteTx, *, vault: Vault, email: str, place: str, reason: str) -> None:
    user = await members.find_user(tx, email=email)
    account_id = await _find_log(tx, user)
    once = vault.fingerprint(f"audit {email} {place} {reason}")
    if not await tries.take(tx, bucket=once, most=1, window_ms=_HOUR_MS):
        return
    if await _has_room(tx, vault, account_id):
        notes.note(
            tx,
            account_id=account_id,
            action=AuditAction.SESSION_REFUSE,
            target=_target(user),
            after={"email": email, "reason": reason},
        )


async def _find_log(tx: WriteTx, user: UserRow | None) -> int:
    """The account that is acted in, else the person's first, else the operator's log."""
    if tx.origin.account_id:
        return tx.origin.account_id
    user_id = _NOBODY if user is None else user.id
    found = await members.list_memberships(tx, user_id=user_id)
    return found[0].account_id if found else OPERATOR_LOG


async def _has_room(tx: WriteTx, vault: Vault, account_id: int) -> bool:
    bucket = vault.fingerprint(f"audit of {account_id}")
    return await tries.take(tx, bucket=bucket, most=MOST_AN_HOUR, window_ms=_HOUR_MS)


def _target(user: UserRow | None) -> str:
    return "user:unknown" if user is None else f"user:{user.id}"
