"""Proofs: the second factor, whichever it is.

Owns which one is asked for. Whoever has one is asked for it, whatever the first factor was, but for
a passkey that was unlocked. Must not know what somebody wants to do.
"""

from bursar.adapters.passkeys import Credential
from bursar.core.errors import BursarError, Unauthenticated
from bursar.service.people import passkeys, second_factors, throttles
from bursar.service.people.ports import People
from bursar.store.database import WriteTx
from bursar.store.people import passkeys as rows


async def check_second(
    tx: WriteTx,
    *,
    people: People,
    user_id: int,
    code: str | None,
    passkey: Credential | None,
    known_place: str,
) -> BursarError | None:
    """Use up the second factor that somebody sends; None when it was good, or they have none.

    A refusal is returned, not raised, because the try has to stay counted: Unauthenticated
    `second_factor_required`, which names what they have, and those of the two kinds of factors.
    """
    if passkey is not None:
        shown = await passkeys.check(tx, people=people, credential=passkey, user_id=user_id)
        return shown if isinstance(shown, BursarError) else None
    has_codes = await second_factors.has_codes(tx, user_id=user_id)
    has_passkey = await rows.has_any(tx, user_id=user_id)
    if not has_codes and not has_passkey:
        return None
    if code is None:
        kinds = [kind for kind, has in (("code", has_codes), ("passkey", has_passkey)) if has]
        message = "Send your second factor, too: a code, or the answer of a passkey."
        return Unauthenticated("second_factor_required", message, extra={"second_factors": kinds})
    bucket = throttles.of_codes(people.vault, user_id, known_place)
    return await second_factors.check(tx, people=people, user_id=user_id, code=code, bucket=bucket)
