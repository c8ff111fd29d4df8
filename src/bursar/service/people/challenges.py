"""Challenges: what somebody is asked, until they answer or it is too late.

Owns how one is kept: under the hash of what was asked, with whatever has to be remembered sealed,
so that whoever reads the database can answer nothing. Must not know what is asked.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bursar.service.people.ports import People
from bursar.store.database import WriteTx
from bursar.store.people import challenges


async def ask(
    tx: WriteTx,
    *,
    people: People,
    challenge: bytes,
    purpose: str,
    remembered: Mapping[str, object],
    lifetime_ms: int,
) -> int:
    """Keep what was asked and what is to be remembered; until when in ms."""
    expires_ms = tx.now_ms + lifetime_ms
    sealed = people.vault.seal(
        json.dumps(dict(remembered)).encode(), purpose=purpose, about=challenge.hex()
    )
    await challenges.insert_challenge(
        tx,
        challenge_hash=_digest(challenge),
        purpose=purpose,
        sealed=sealed,
        expires_ms=expires_ms,
    )
    return expires_ms


async def answered(
    tx: WriteTx, *, people: People, challenge: bytes, purpose: str
) -> dict[str, Any] | None:
    """Return what was remembered; None for what was not asked, was answered before, or is over."""
    sealed = await challenges.take_challenge(tx, challenge_hash=_digest(challenge), purpose=purpose)
    if sealed is None:
        return None
    plain = people.vault.open(sealed, purpose=purpose, about=challenge.hex())
    return None if plain is None else dict(json.loads(plain))


def _digest(challenge: bytes) -> bytes:
    return hashlib.sha256(challenge).digest()
