"""Second factors and recovery codes.

Owns the tables `second_factors` and `recovery_codes`. A code's use is one guarded statement, so
that it counts once however many try it at the same moment. Must not know how codes are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import delete, func, insert, select, update

from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import recovery_codes, second_factors

TOTP: Final = "totp"


@dataclass(frozen=True, slots=True)
class FactorRow:
    """A second factor; it counts once it is confirmed. `last_step` is the last that was used."""

    sealed_secret: bytes = field(repr=False)
    created_ms: int
    confirmed_ms: int | None
    last_step: int


async def find_factor(tx: ReadTx, *, user_id: int, kind: str = TOTP) -> FactorRow | None:
    """Return a person's second factor of a kind, or None."""
    columns = [second_factors.c[name] for name in FactorRow.__dataclass_fields__]
    row = (await tx.execute(select(*columns).where(*_is(user_id, kind)))).one_or_none()
    return None if row is None else FactorRow(**row._mapping)


async def replace_factor(
    tx: WriteTx, *, user_id: int, sealed_secret: bytes, kind: str = TOTP
) -> None:
    """Store a second factor that is not confirmed yet, in place of another such."""
    await delete_factor(tx, user_id=user_id, kind=kind)
    await tx.execute(
        insert(second_factors).values(
            user_id=user_id, kind=kind, sealed_secret=sealed_secret, created_ms=tx.now_ms
        )
    )


async def confirm_factor(tx: WriteTx, *, user_id: int, kind: str = TOTP) -> None:
    """Have a second factor count from now on."""
    statement = update(second_factors).where(*_is(user_id, kind))
    await tx.execute(statement.values(confirmed_ms=tx.now_ms))


async def use_step(tx: WriteTx, *, user_id: int, step: int, kind: str = TOTP) -> bool:
    """Use up a step of time; False when it, or a later one, was used before."""
    statement = (
        update(second_factors)
        .where(*_is(user_id, kind), second_factors.c.last_step < step)
        .values(last_step=step)
    )
    return (await tx.execute(statement)).rowcount == 1


async def delete_factor(tx: WriteTx, *, user_id: int, kind: str = TOTP) -> None:
    """Forget a second factor."""
    await tx.execute(delete(second_factors).where(*_is(user_id, kind)))


async def replace_codes(tx: WriteTx, *, user_id: int, code_hashes: Sequence[bytes]) -> None:
    """Store recovery codes in place of those that are left."""
    await tx.execute(delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
    if code_hashes:
        rows = [
            {"user_id": user_id, "code_hash": each, "created_ms": tx.now_ms} for each in code_hashes
        ]
        await tx.execute(insert(recovery_codes).values(rows))


async def use_code(tx: WriteTx, *, user_id: int, code_hash: bytes) -> bool:
    """Use up a recovery code; False when there is none like it."""
    statement = delete(recovery_codes).where(
        recovery_codes.c.user_id == user_id, recovery_codes.c.code_hash == code_hash
    )
    return (await tx.execute(statement)).rowcount == 1


async def count_codes(tx: ReadTx, *, user_id: int) -> int:
    """Return how many recovery codes are left."""
    query = select(func.count()).where(recovery_codes.c.user_id == user_id)
    return int((await tx.execute(query)).scalar_one())


def _is(user_id: int, kind: str) -> tuple[Any, ...]:
    return second_factors.c.user_id == user_id, second_factors.c.kind == kind
