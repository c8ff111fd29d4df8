"""Second factors: codes by the clock, and recovery codes for when the phone is gone.

Owns enrolment and the check of a code. A code by the clock counts once, a recovery code too.
Passkeys are second factors as well, and have a module of their own. Must not know what else
somebody has to prove.
"""

import base64
from dataclasses import dataclass, field
from typing import Final

from bursar.adapters import totp
from bursar.core.audit.events import AuditAction
from bursar.core.errors import BursarError, Conflict, Unauthenticated, Unavailable
from bursar.core.people import tokens as forms
from bursar.service.audit import notes
from bursar.service.people import throttles
from bursar.service.people.ports import People
from bursar.service.people.throttles import Bucket
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import factors, passkeys, tries
from bursar.store.people.factors import FactorRow

_PURPOSE: Final = "second factor"
_ISSUER: Final = "Bursar"
# Where tries are counted of those who have a session.
SIGNED_IN: Final = "signed in"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A second factor to be: its secret, shown once, and the same as an app's QR code has it."""

    secret: str = field(repr=False)
    address: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether somebody has a second factor, and how many recovery codes are left."""

    is_enrolled: bool
    codes_left: int


async def get_standing(tx: ReadTx, *, user_id: int) -> Standing:
    """Return how a person stands."""
    left = await factors.count_codes(tx, user_id=user_id)
    return Standing(await is_enrolled(tx, user_id=user_id), left)


async def is_enrolled(tx: ReadTx, *, user_id: int) -> bool:
    """Whether somebody needs a second factor to sign in: codes by the clock, or a passkey."""
    return await has_codes(tx, user_id=user_id) or await passkeys.has_any(tx, user_id=user_id)


async def has_codes(tx: ReadTx, *, user_id: int) -> bool:
    """Whether somebody has an authenticator app that counts."""
    row = await factors.find_factor(tx, user_id=user_id)
    return row is not None and row.confirmed_ms is not None


async def begin(tx: WriteTx, *, people: People, user_id: int, email: str) -> Enrolment:
    """Make a second factor, which counts once a code of it is confirmed.

    Raises Conflict (`second_factor_exists`) while there is one that counts.
    """
    if await has_codes(tx, user_id=user_id):
        message = "There is a second factor already. Remove it first."
        raise Conflict("second_factor_exists", message)
    secret = base64.b32encode(people.random_bytes(totp.SECRET_BYTES)).decode()
    sealed = people.vault.seal(secret.encode(), purpose=_PURPOSE, about=str(user_id))
    await factors.replace_factor(tx, user_id=user_id, sealed_secret=sealed)
    await notes.note_of_person(
        tx, user_id=user_id, action=AuditAction.SECOND_FACTOR_BEGIN, target=f"user:{user_id}"
    )
    return Enrolment(secret, totp.address(secret, email=email, issuer=_ISSUER))


async def confirm(
    tx: WriteTx, *, people: People, user_id: int, code: str
) -> list[str] | BursarError:
    """Have a second factor count from now on and return its recovery codes.

    A refusal is returned, not raised, because it counts as a try. Raises Conflict
    (`no_second_factor`).
    """
    row = await factors.find_factor(tx, user_id=user_id)
    if row is None or row.confirmed_ms is not None:
        raise Conflict("no_second_factor", "There is no second factor to confirm.")
    bucket = throttles.of_codes(people.vault, user_id, SIGNED_IN)
    refused = await check(
        tx, people=people, user_id=user_id, code=code, bucket=bucket, is_confirming=True
    )
    if refused is not None:
        return refused
    await factors.confirm_factor(tx, user_id=user_id)
    await notes.note_of_person(
        tx, user_id=user_id, action=AuditAction.SECOND_FACTOR_CONFIRM, target=f"user:{user_id}"
    )
    return await renew_codes(tx, people=people, user_id=user_id)


async def renew_codes(tx: WriteTx, *, people: People, user_id: int) -> list[str]:
    """Return ten new recovery codes, in place of those that are left."""
    codes = [
        forms.make_recovery_code(people.random_bytes(forms.CODE_BYTES)) for _ in range(forms.CODES)
    ]
    hashes = [found for found in map(forms.recovery_digest, codes) if found is not None]
    await factors.replace_codes(tx, user_id=user_id, code_hashes=hashes)
    await notes.note_of_person(
        tx, user_id=user_id, action=AuditAction.SECOND_FACTOR_RENEW_CODES, target=f"user:{user_id}"
    )
    return codes


async def remove(tx: WriteTx, *, user_id: int) -> None:
    """Have somebody sign in without codes by the clock from now on; passkeys stay."""
    await factors.delete_factor(tx, user_id=user_id)
    await notes.note_of_person(
        tx, user_id=user_id, action=AuditAction.SECOND_FACTOR_REMOVE, target=f"user:{user_id}"
    )
    await forget_codes_of_none(tx, user_id=user_id)


async def forget_codes_of_none(tx: WriteTx, *, user_id: int) -> None:
    """Forget the recovery codes of somebody who has no second factor any more."""
    if not await is_enrolled(tx, user_id=user_id):
        await factors.replace_codes(tx, user_id=user_id, code_hashes=())


async def check(
    tx: WriteTx,
    *,
    people: People,
    user_id: int,
    code: str,
    bucket: Bucket,
    is_confirming: bool = False,
) -> BursarError | None:
    """Use a code up, one try of the bucket; None when it was good.

    The codes of an app that is not confirmed count only for `is_confirming`.

    A refusal is returned, not raised, because the try has to stay counted: Unauthenticated
    `invalid_code`, RateRefused `too_many_attempts`, Unavailable `second_factor_unavailable` where
    the secret cannot be opened.
    """
    if not await tries.take(tx, bucket=bucket.id, most=bucket.most, window_ms=bucket.window_ms):
        return await throttles.refusal(tx, bucket)
    row = await factors.find_factor(tx, user_id=user_id)
    if row is not None and row.confirmed_ms is None and not is_confirming:
        row = None
    recovery = forms.recovery_digest(code)
    if recovery is not None:
        is_good = await factors.use_code(tx, user_id=user_id, code_hash=recovery)
    else:
        secret = None if row is None else _open(people, row, user_id)
        if row is not None and secret is None:
            message = "Codes cannot be checked: the server's secret key has changed."
            return Unavailable("second_factor_unavailable", message)
        step = None if secret is None else totp.find_step(secret, code, now_ms=tx.now_ms)
        is_good = step is not None and await factors.use_step(tx, user_id=user_id, step=step)
    if not is_good:
        return Unauthenticated("invalid_code", "The code is wrong, or was used before.")
    await tries.give_back(tx, bucket=bucket.id)
    return None


def _open(people: People, row: FactorRow, user_id: int) -> str | None:
    secret = people.vault.open(row.sealed_secret, purpose=_PURPOSE, about=str(user_id))
    return None if secret is None else secret.decode()
