"""Limits as people see them: what is allowed, used and left in the present window.

Owns the step from a stored row to the figures of now: a window that has ended is shown as a new one
with nothing used, as the next lease will find it. Must not change anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bursar.core import allowances as rules
from bursar.core import windows
from bursar.core.allowances import Allowance
from bursar.core.errors import InvariantViolated
from bursar.core.windows import Window
from bursar.store.database import ReadTx
from bursar.store.limits import allowances
from bursar.store.tenants import accounts


@dataclass(frozen=True, slots=True)
class Limit:
    """An allowance in its present window; `resets_at_ms` None is never."""

    allowance: Allowance
    resets_at_ms: int | None


async def list_limits(tx: ReadTx, *, account_id: int, now_ms: int) -> list[Limit]:
    """Return every allowance of the account but those of deleted keys, sorted by name."""
    rows = await allowances.list_allowances(tx, account_id=account_id)
    return await _at(tx, rows, account_id=account_id, now_ms=now_ms)


async def list_key_limits(tx: ReadTx, *, account_id: int, key_id: int, now_ms: int) -> list[Limit]:
    """Return the allowances of one key, sorted by name."""
    rows = await allowances.list_of_scope(tx, account_id=account_id, scope=f"key:{key_id}")
    return await _at(tx, rows, account_id=account_id, now_ms=now_ms)


async def _at(
    tx: ReadTx, rows: Iterable[Allowance], *, account_id: int, now_ms: int
) -> list[Limit]:
    account = await accounts.find_account(tx, account_id=account_id)
    if account is None:
        raise InvariantViolated("account_missing", f"Account {account_id} has no row.")
    limits = []
    for row in rows:
        bounds = windows.bounds(Window(row.ref.window), now_ms=now_ms, zone=account.time_zone)
        limits.append(Limit(rules.roll(row, bounds.start_ms), bounds.end_ms))
    return limits
