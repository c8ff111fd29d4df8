"""Alerts: telling once that somebody should look, and listing what was told.

Owns the words. A soft limit is told of once in each of its windows, and again when another amount
has been set and reached. Must not know who reads it.
"""

from functools import partial

from bursar.core.allowances import Allowance, Resource
from bursar.core.money import format_usd
from bursar.store.database import Database, ReadTx, WriteTx
from bursar.store.limits import alerts
from bursar.store.limits.alerts import SOFT_LIMIT, AlertRow

_MANY = 100


async def list_alerts(
    tx: ReadTx, *, account_id: int, before_id: int | None, limit: int
) -> list[AlertRow]:
    """Return the account's alerts with ids below `before_id`, newest first."""
    return await alerts.list_alerts(tx, account_id=account_id, before_id=before_id, limit=limit)


async def tell_of_soft_limits(database: Database) -> int:
    """Store an alert for each soft limit that is reached and not told of; how many that were."""
    told = 0
    while True:
        async with database.read() as tx:
            found = await alerts.list_reached(tx, limit=_MANY)
        new = await database.transact(partial(_tell, found=found)) if found else 0
        told += new
        # Where others have told of all of these meanwhile, they have seen the rest too.
        if len(found) < _MANY or not new:
            return told


async def _tell(tx: WriteTx, *, found: list[Allowance]) -> int:
    told = 0
    for allowance in found:
        told += await alerts.insert_alert(
            tx,
            account_id=allowance.ref.account_id,
            kind=SOFT_LIMIT,
            subject=alerts.subject_of(allowance),
            occurrence_ms=allowance.window_start_ms,
            body=_words(allowance),
        )
    return told


def _words(allowance: Allowance) -> dict[str, object]:
    ref, soft = allowance.ref, allowance.soft or 0
    is_cost = ref.resource == Resource.COST
    used_text = format_usd(allowance.used) if is_cost else str(allowance.used)
    soft_text = format_usd(soft) if is_cost else str(soft)
    unit = "USD" if is_cost else ref.resource
    return {
        "message": f"{ref.name}: {used_text} of a soft limit of {soft_text} {unit} are used.",
        "allowance": ref.name,
        "resource": ref.resource,
        "window": ref.window,
        "soft_limit": soft_text if is_cost else soft,
        "used": used_text if is_cost else allowance.used,
    }
