"""The limit log: which limit refused which calls.

Owns what may be asked of it. Must not know how it is written.
"""

from bursar.core.errors import Invalid
from bursar.store.database import ReadTx
from bursar.store.limits import refusals
from bursar.store.limits.refusals import Position, RefusalFilter, RefusalRow


async def list_refusals(
    tx: ReadTx, *, account_id: int, where: RefusalFilter, behind: Position | None, limit: int
) -> list[RefusalRow]:
    """Return the account's refusals, newest first; raises Invalid for a reversed span."""
    if where.from_ms is not None and where.to_ms is not None and where.from_ms > where.to_ms:
        raise Invalid("invalid_range", "The span must not end before it begins.", param="from")
    return await refusals.list_refusals(
        tx, account_id=account_id, where=where, behind=behind, limit=limit
    )
