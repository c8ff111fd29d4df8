"""Challenges: what somebody has to answer, once and soon.

Owns the `challenges` table. An answered one is deleted by the statement that answers it, so that of
many who answer at the same moment one is heard. Must not know what is asked; that is sealed.
"""

from sqlalchemy import delete, insert

from bursar.store.database import WriteTx
from bursar.store.tables import challenges


async def insert_challenge(
    tx: WriteTx, *, challenge_hash: bytes, purpose: str, sealed: bytes, expires_ms: int
) -> None:
    """Store what somebody has to answer until then."""
    await tx.execute(
        insert(challenges).values(
            challenge_hash=challenge_hash, purpose=purpose, sealed=sealed, expires_ms=expires_ms
        )
    )


async def take_challenge(tx: WriteTx, *, challenge_hash: bytes, purpose: str) -> bytes | None:
    """Take a challenge out and return what was sealed; None when there is none (any more)."""
    statement = (
        delete(challenges)
        .where(challenges.c.challenge_hash == challenge_hash, challenges.c.purpose == purpose)
        .returning(challenges.c.sealed, challenges.c.expires_ms)
    )
    row = (await tx.execute(statement)).one_or_none()
    return None if row is None or row.expires_ms <= tx.now_ms else row.sealed


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget challenges that expired before `at_ms`; how many they were."""
    return (await tx.execute(delete(challenges).where(challenges.c.expires_ms < at_ms))).rowcount
