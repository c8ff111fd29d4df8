"""Time zones: what becomes of an account's windows when it moves to another one.

Owns the step of all its days, weeks and months from the old zone's bounds to the new one's. Without
it a window that begins later in the old zone would be one that lies ahead in the new one, and
nobody could lease from it until that time has come. Must not know why an account moves.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, delete, func, select, update

from bursar.core import permissions, windows
from bursar.core.allowances import Resource
from bursar.core.windows import Window
from bursar.store.database import WriteTx
from bursar.store.tables import allowances, leases, usage_events

# Minutes and hours are the same everywhere.
CALENDAR: Final = (Window.DAY, Window.WEEK, Window.MONTH)


async def move_windows(tx: WriteTx, *, account_id: int, former: str, zone: str) -> None:
    """Have the account's allowances stand in the windows that the new zone has now.

    After the account's row has its zone, whose lock keeps others from making allowances. Where the
    window begins later in the new zone, what was used before that is taken off; where it has begun
    before, what was used in between does not count. Leases end, as with every window: calls in
    flight count for neither.
    """
    for window in CALENDAR:
        start_ms = windows.bounds(window, now_ms=tx.now_ms, zone=zone).start_ms
        present_ms = windows.bounds(window, now_ms=tx.now_ms, zone=former).start_ms
        c = allowances.c
        rows = await tx.execute(
            select(*allowances.columns)
            .where(
                c.account_id == account_id, c.window_name == window, c.window_start_ms != start_ms
            )
            # In the order in which workers lock them, or two would wait for each other.
            .order_by(*allowances.primary_key.columns)
            .with_for_update()
        )
        moving = list(rows)
        before = await _list_use(
            tx, account_id=account_id, from_ms=present_ms, to_ms=start_ms, is_any=bool(moving)
        )
        for row in moving:
            is_over = row.window_start_ms < min(present_ms, start_ms)
            used = 0 if is_over else max(0, row.used - _count(row, before))
            await _move(tx, row, used=used, start_ms=start_ms)


async def _move(tx: WriteTx, row: Row[*tuple[Any, ...]], *, used: int, start_ms: int) -> None:
    key = [column.name for column in allowances.primary_key]
    await tx.execute(
        update(allowances)
        .where(*(allowances.c[name] == getattr(row, name) for name in key))
        # What it counts is not certain to be all that its window has seen: it is as if made now.
        .values(used=used, leased=0, window_start_ms=start_ms, created_ms=tx.now_ms)
    )
    await tx.execute(
        delete(leases).where(
            *(leases.c[name] == getattr(row, name) for name in key),
            leases.c.window_start_ms != start_ms,
        )
    )


async def _list_use(
    tx: WriteTx, *, account_id: int, from_ms: int, to_ms: int, is_any: bool
) -> Sequence[Row[*tuple[Any, ...]]]:
    """What was used from one moment up to the other, by all that allowances tell apart."""
    if from_ms >= to_ms or not is_any:
        return []
    c = usage_events.c
    who = (c.key_id, c.user_id, c.project_id, c.model)
    query = (
        select(
            *who,
            func.sum(c.cost_nanos).label("cost"),
            func.count().label("requests"),
            func.sum(c.input_tokens + c.output_tokens).label("tokens"),
        )
        .where(c.account_id == account_id, c.at_ms >= from_ms, c.at_ms < to_ms)
        .group_by(*who)
    )
    return list(await tx.execute(query))


def _count(row: Row[*tuple[Any, ...]], cells: Sequence[Row[*tuple[Any, ...]]]) -> int:
    """How much of what was used is the allowance's."""
    if row.resource == Resource.CONCURRENCY:
        return 0
    total = 0
    for cell in cells:
        scopes = ("account", f"key:{cell.key_id}", f"user:{cell.user_id}")
        is_scope = row.scope in (*scopes, f"project:{cell.project_id}")
        if is_scope and (not row.model or permissions.matches(row.model, cell.model)):
            total += int(getattr(cell, row.resource))
    return total
