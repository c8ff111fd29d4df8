"""Passkeys: made by somebody who has signed in, used as a second factor or instead of a password.

Owns who may have how many, and what a use proves. A challenge counts for one answer within five
minutes. Must not know what else somebody has to prove.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from bursar.adapters import passkeys as devices
from bursar.adapters.passkeys import Credential
from bursar.core import text
from bursar.core.audit.events import AuditAction
from bursar.core.errors import BursarError, Conflict, Invalid, NotFound, Unauthenticated
from bursar.core.permissions import Address
from bursar.service.audit import notes
from bursar.service.people import challenges, second_factors, throttles
from bursar.service.people.ports import People
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import members, passkeys
from bursar.store.people.members import UserRow
from bursar.store.people.passkeys import PasskeyRow

MOST: Final = 20
_MAKE: Final = "passkey to make"
_USE: Final = "passkey to use"

_log = structlog.get_logger("bursar.people")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a browser is to do, and until when."""

    options: dict[str, Any]
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Made:
    """A new passkey; recovery codes where it is the first second factor."""

    row: PasskeyRow
    recovery_codes: list[str] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """A passkey that was used just now; `is_verified` where its device knows its owner."""

    user_id: int
    is_verified: bool


async def list_own(tx: ReadTx, *, user_id: int) -> list[PasskeyRow]:
    """Return a person's passkeys, oldest first."""
    return await passkeys.list_passkeys(tx, user_id=user_id)


async def begin(tx: WriteTx, *, people: People, user_id: int) -> Asked:
    """Ask for a new passkey; raises Conflict (`too_many_passkeys`)."""
    user = await _get_user(tx, user_id)
    known = await passkeys.list_passkeys(tx, user_id=user_id)
    _check_room(len(known))
    # A person's passkeys carry one handle, which says nothing about them.
    handle = known[0].user_handle if known else people.random_bytes(devices.HANDLE_BYTES)
    challenge = people.random_bytes(devices.CHALLENGE_BYTES)
    expires_ms = await challenges.ask(
        tx,
        people=people,
        challenge=challenge,
        purpose=_MAKE,
        remembered={"user_id": user_id, "handle": handle.hex()},
        lifetime_ms=devices.LIFETIME_MS,
    )
    options = devices.creation_options(
        people.party,
        challenge=challenge,
        user_handle=handle,
        email=user.email,
        name=user.name,
        known=[row.credential_id for row in known],
    )
    return Asked(options, expires_ms)


async def finish(
    tx: WriteTx, *, people: People, user_id: int, name: str, credential: Credential
) -> Made | BursarError:
    """Keep the passkey that a device has made; it is asked for from the next sign-in on.

    A refusal of the device's answer is returned, not raised, because its challenge is used up:
    Invalid `passkey_refused`. Raises Conflict (`passkey_exists`, `too_many_passkeys`).
    """
    clean = text.clean_name(name, max_len=100)
    challenge = devices.find_challenge(credential)
    if challenge is None:
        return _refused()
    await members.lock_user(tx, user_id=user_id)
    asked = await challenges.answered(tx, people=people, challenge=challenge, purpose=_MAKE)
    if asked is None or asked["user_id"] != user_id:
        return _refused()
    made = devices.verify_new(people.party, credential, challenge=challenge)
    if made is None:
        return _refused()
    _check_room(await passkeys.count_passkeys(tx, user_id=user_id))
    is_first = not await second_factors.is_enrolled(tx, user_id=user_id)
    codes = None
    if is_first:
        codes = await second_factors.renew_codes(tx, people=people, user_id=user_id)
    row = await passkeys.insert_passkey(
        tx,
        user_id=user_id,
        credential_id=made.credential_id,
        user_handle=bytes.fromhex(asked["handle"]),
        public_key=made.public_key,
        sign_count=made.sign_count,
        name=clean,
        transports=" ".join(made.transports),
        is_synced=made.is_synced,
    )
    await notes.note_of_person(
        tx,
        user_id=user_id,
        action=AuditAction.PASSKEY_ADD,
        target=f"passkey:{row.id}",
        after={"name": clean},
    )
    return Made(row, codes)


async def rename(tx: WriteTx, *, user_id: int, passkey_id: int, name: str) -> PasskeyRow:
    """Give a passkey another name and return it; raises NotFound and Invalid."""
    before = await get_own(tx, user_id=user_id, passkey_id=passkey_id)
    clean = text.clean_name(name, max_len=100)
    await passkeys.rename_passkey(tx, passkey_id=passkey_id, name=clean)
    await notes.note_of_person(
        tx,
        user_id=user_id,
        action=AuditAction.PASSKEY_UPDATE,
        target=f"passkey:{passkey_id}",
        before={"name": before.name},
        after={"name": clean},
    )
    return await get_own(tx, user_id=user_id, passkey_id=passkey_id)


async def get_own(tx: ReadTx, *, user_id: int, passkey_id: int) -> PasskeyRow:
    """Return one of a person's passkeys; raises NotFound."""
    row = await passkeys.find_passkey(tx, user_id=user_id, passkey_id=passkey_id)
    if row is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return row


async def remove(tx: WriteTx, *, user_id: int, passkey_id: int) -> None:
    """Forget a passkey; with the last second factor, recovery codes go too. Raises NotFound."""
    before = await get_own(tx, user_id=user_id, passkey_id=passkey_id)
    await passkeys.delete_passkey(tx, user_id=user_id, passkey_id=passkey_id)
    await notes.note_of_person(
        tx,
        user_id=user_id,
        action=AuditAction.PASSKEY_REMOVE,
        target=f"passkey:{passkey_id}",
        before={"name": before.name},
    )
    await second_factors.forget_codes_of_none(tx, user_id=user_id)


async def ask(tx: WriteTx, *, people: People, address: Address | None) -> Asked:
    """Ask whoever it is for a passkey; raises RateRefused (`too_many_attempts`).

    What is asked is the same for everybody: it tells nobody who has a passkey.
    """
    await throttles.take(tx, throttles.of_challenges(people.vault, address))
    challenge = people.random_bytes(devices.CHALLENGE_BYTES)
    expires_ms = await challenges.ask(
        tx,
        people=people,
        challenge=challenge,
        purpose=_USE,
        remembered={},
        lifetime_ms=devices.LIFETIME_MS,
    )
    return Asked(devices.request_options(people.party, challenge=challenge), expires_ms)


async def check(
    tx: WriteTx, *, people: People, credential: Credential, user_id: int | None = None
) -> Shown | BursarError:
    """Return whose passkey was used, of this person where one is named.

    A refusal is returned, not raised, because the challenge is used up: Unauthenticated
    `invalid_passkey`, whatever is wrong.
    """
    challenge = devices.find_challenge(credential)
    credential_id = devices.find_credential_id(credential)
    if challenge is None or credential_id is None:
        return wrong()
    if await challenges.answered(tx, people=people, challenge=challenge, purpose=_USE) is None:
        return wrong()
    row = await passkeys.find_by_credential(tx, credential_id=credential_id)
    if row is None or user_id not in {None, row.user_id}:
        return wrong()
    use = devices.verify_use(
        people.party,
        credential,
        challenge=challenge,
        public_key=row.public_key,
        sign_count=row.sign_count,
    )
    if use is None or use.user_handle not in {None, row.user_handle}:
        _log.warning("passkey_refused", passkey=row.id, user=row.user_id)
        return wrong()
    if not await passkeys.use_passkey(tx, before=row, sign_count=use.sign_count):
        return wrong()
    return Shown(row.user_id, use.is_verified)


async def _get_user(tx: ReadTx, user_id: int) -> UserRow:
    user = await members.find_user(tx, user_id=user_id)
    if user is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return user


def _check_room(count: int) -> None:
    if count >= MOST:
        raise Conflict("too_many_passkeys", f"Somebody may have at most {MOST} passkeys.")


def _refused() -> Invalid:
    message = "The device's answer is not good, or came too late. Begin again."
    return Invalid("passkey_refused", message, param="credential")


def wrong() -> Unauthenticated:
    """Return the one refusal of a passkey, whatever is wrong with it."""
    message = "The passkey is not known here, or its answer is not good. Begin again."
    return Unauthenticated("invalid_passkey", message)
