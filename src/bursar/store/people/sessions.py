"""Sessions: families of refresh tokens.

Owns the `sessions` table. Must not know tokens, only their hashes, nor when one is too old.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, delete, exists, func, insert, select, update

from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import sessions


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One sign-in and all that came out of it; an ended one stays for a while.

    One that a key was traded for has its `key_id`, and nobody as its user.
    """

    id: int
    user_id: int
    account_id: int
    token_hash: bytes = field(repr=False)
    previous_hash: bytes | None = field(repr=False)
    previous_until_ms: int | None
    sealed_next: bytes | None = field(repr=False)
    device: str
    address: str
    created_ms: int
    last_used_ms: int
    expires_ms: int
    ended_ms: int | None
    key_id: int | None


async def insert_session(
    tx: WriteTx,
    *,
    user_id: int,
    account_id: int,
    family_hash: bytes,
    token_hash: bytes,
    device: str,
    address: str,
    expires_ms: int,
    key_id: int | None = None,
) -> int:
    """Store a session and return its id; of a key's, the user is 0."""
    session_id = await counters.advance(tx, name="sessions")
    await tx.execute(
        insert(sessions).values(
            id=session_id,
            user_id=user_id,
            account_id=account_id,
            family_hash=family_hash,
            token_hash=token_hash,
            device=device,
            address=address,
            created_ms=tx.now_ms,
            last_used_ms=tx.now_ms,
            expires_ms=expires_ms,
            key_id=key_id,
        )
    )
    return session_id


async def find_session(tx: ReadTx, *, session_id: int) -> SessionRow | None:
    """Return a session, ended ones too, or None."""
    row = (await tx.execute(_select().where(sessions.c.id == session_id))).one_or_none()
    return None if row is None else _session(row)


async def find_family(tx: ReadTx, *, family_hash: bytes) -> SessionRow | None:
    """Return the session of a family, or None."""
    row = (await tx.execute(_select().where(sessions.c.family_hash == family_hash))).one_or_none()
    return None if row is None else _session(row)


async def lock_family(tx: WriteTx, *, family_hash: bytes) -> SessionRow | None:
    """Return the session of a family and keep others from changing it until commit; or None."""
    query = _select().where(sessions.c.family_hash == family_hash).with_for_update()
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _session(row)


async def turn(
    tx: WriteTx,
    *,
    before: SessionRow,
    token_hash: bytes,
    sealed_next: bytes,
    grace_ms: int,
    expires_ms: int,
) -> None:
    """Put the next token in place of the present one, which is known for `grace_ms` more."""
    await tx.execute(
        update(sessions)
        .where(sessions.c.id == before.id)
        .values(
            token_hash=token_hash,
            previous_hash=before.token_hash,
            previous_until_ms=tx.now_ms + grace_ms,
            sealed_next=sealed_next,
            last_used_ms=tx.now_ms,
            expires_ms=expires_ms,
        )
    )


async def set_account(tx: WriteTx, *, session_id: int, account_id: int) -> None:
    """Have a session act in another account."""
    statement = update(sessions).where(sessions.c.id == session_id)
    await tx.execute(statement.values(account_id=account_id))


async def list_open(tx: ReadTx, *, user_id: int, now_ms: int) -> list[SessionRow]:
    """Return a person's sessions that are neither ended nor expired, the latest used first."""
    query = _select().where(sessions.c.user_id == user_id, *_is_open(now_ms))
    ordered = query.order_by(sessions.c.last_used_ms.desc(), sessions.c.id.desc())
    return [_session(row) for row in await tx.execute(ordered)]


async def list_beyond(
    tx: ReadTx, *, account_id: int, key_id: int, now_ms: int, most: int
) -> list[int]:
    """Return the ids of a key's open sessions but for the `most` that were used last."""
    query = select(sessions.c.id).where(
        sessions.c.account_id == account_id, sessions.c.key_id == key_id, *_is_open(now_ms)
    )
    ordered = query.order_by(sessions.c.last_used_ms.desc(), sessions.c.id.desc())
    return list((await tx.execute(ordered.offset(most))).scalars())


async def list_last_used(tx: ReadTx, *, account_id: int) -> dict[int, int]:
    """Return when sessions in this account were last used, by user; forgotten ones do not count."""
    query = (
        select(sessions.c.user_id, func.max(sessions.c.last_used_ms).label("last_ms"))
        .where(sessions.c.account_id == account_id)
        .group_by(sessions.c.user_id)
    )
    return {row.user_id: int(row.last_ms) for row in await tx.execute(query)}


async def end(
    tx: WriteTx,
    *,
    user_id: int | None = None,
    account_id: int | None = None,
    session_id: int | None = None,
    but: int | None = None,
) -> int:
    """End the open sessions that match all that is given, but for one; how many they were."""
    given = {"user_id": user_id, "account_id": account_id, "id": session_id}
    matches = [sessions.c[name] == value for name, value in given.items() if value is not None]
    if but is not None:
        matches.append(sessions.c.id != but)
    statement = update(sessions).where(*matches, sessions.c.ended_ms.is_(None))
    return (await tx.execute(statement.values(ended_ms=tx.now_ms, sealed_next=None))).rowcount


async def was_here(tx: ReadTx, *, user_id: int, address: str, since_ms: int) -> bool:
    """Whether a person has signed in from this address since then."""
    query = select(
        exists().where(
            sessions.c.user_id == user_id,
            sessions.c.address == address,
            sessions.c.created_ms >= since_ms,
        )
    )
    return bool((await tx.execute(query)).scalar_one())


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget sessions that ended or expired before `at_ms`; how many they were."""
    is_over = (sessions.c.ended_ms < at_ms) | (sessions.c.expires_ms < at_ms)
    return (await tx.execute(delete(sessions).where(is_over))).rowcount


def _is_open(now_ms: int) -> tuple[Any, ...]:
    return sessions.c.ended_ms.is_(None), sessions.c.expires_ms > now_ms


def _select() -> Select[*tuple[Any, ...]]:
    return select(*(sessions.c[name] for name in SessionRow.__dataclass_fields__))


def _session(row: Any) -> SessionRow:
    return SessionRow(**row._mapping)
