"""Keys as their accounts see them: what each has used, and what it has left.

Owns which figures go with a key. Must not change anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bursar.core.secrets import KeyKind
from bursar.service.limits import allowances as limits
from bursar.service.limits.allowances import Limit
from bursar.store import summaries
from bursar.store.database import ReadTx
from bursar.store.keys import KeyRow
from bursar.store.summaries import KeyUse

_DAY_MS: Final = 86_400_000
_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key and its figures.

    `last_used_ms` is None for one that was never used; until `previous_until_ms` the secret before
    the last rotation works. `spent_nanos` is what it spent today and in
    the six days before (UTC); `limits` are in their present windows.
    """

    row: KeyRow
    last_used_ms: int | None
    previous_until_ms: int | None
    spent_nanos: int
    limits: list[Limit]


async def view(
    tx: ReadTx, *, account_id: int, rows: Sequence[KeyRow], now_ms: int
) -> list[KeyView]:
    """Return keys of one account with their figures, in the order given."""
    key_ids = [row.id for row in rows if row.kind == KeyKind.INFERENCE]
    since_ms = now_ms - now_ms % _DAY_MS - (_DAYS - 1) * _DAY_MS
    uses = await summaries.list_key_uses(
        tx, account_id=account_id, key_ids=key_ids, since_ms=since_ms
    )
    found = await limits.list_limits_of_keys(
        tx, account_id=account_id, key_ids=key_ids, now_ms=now_ms
    )
    unused = KeyUse(None, 0)
    views = []
    for row in rows:
        use = uses.get(row.id, unused)
        until_ms = row.previous_until_ms
        if until_ms is not None and until_ms <= now_ms:
            until_ms = None
        limits_ = found.get(row.id, [])
        views.append(KeyView(row, use.last_ms, until_ms, use.spent_nanos, limits_))
    return views


async def view_one(tx: ReadTx, *, row: KeyRow, now_ms: int) -> KeyView:
    """Return a key with its figures."""
    return (await view(tx, account_id=row.account_id, rows=[row], now_ms=now_ms))[0]
