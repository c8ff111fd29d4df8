"""Alerts: what somebody should look at.

Owns the table `alerts`, and finding the soft limits that are reached. The same occurrence is told
once, whoever notices it and how often. Must not know who is told, or how.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Text, case, cast, exists, insert, select

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import alerts, allowances

SOFT_LIMIT = "soft_limit"


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One alert: its kind, what it is about, and what to say; `body` is JSON."""

    account_id: int
    id: int
    at_ms: int
    kind: str
    subject: str
    occurrence_ms: int
    body: str


async def insert_alert(
    tx: WriteTx,
    *,
    account_id: int,
    kind: str,
    subject: str,
    occurrence_ms: int,
    body: Mapping[str, object],
) -> bool:
    """Store an alert; False when the same occurrence of the subject has been told before.

    After everything else in its transaction: it holds the counter of alerts until commit.
    """
    # The counter's lock first, so that nobody can tell of it between the question and the answer.
    await counters.advance(tx, name="alerts", by=0)
    told = select(alerts.c.id).where(
        alerts.c.account_id == account_id,
        alerts.c.kind == kind,
        alerts.c.subject == subject,
        alerts.c.occurrence_ms == occurrence_ms,
    )
    if (await tx.execute(told)).first() is not None:
        return False
    await tx.execute(
        insert(alerts).values(
            account_id=account_id,
            id=await counters.advance(tx, name="alerts"),
            at_ms=tx.now_ms,
            kind=kind,
            subject=subject,
            occurrence_ms=occurrence_ms,
            body=json.dumps(body, ensure_ascii=True, sort_keys=True),
        )
    )
    return True


async def list_alerts(
    tx: ReadTx, *, account_id: int, before_id: int | None, limit: int
) -> list[AlertRow]:
    """Return the account's alerts with ids below `before_id`, newest first."""
    query = (
        select(alerts)
        .where(alerts.c.account_id == account_id)
        .order_by(alerts.c.id.desc())
        .limit(limit)
    )
    if before_id is not None:
        query = query.where(alerts.c.id < before_id)
    return [AlertRow(**row._mapping) for row in await tx.execute(query)]


async def list_reached(tx: ReadTx, *, limit: int) -> list[Allowance]:
    """Return soft limits that are reached, of any account, and have not been told of.

    The window that a row stands in may have ended: nothing has rolled it since.
    """
    c = allowances.c
    name = c.scope + "/" + c.resource + "/" + c.window_name
    name += case((c.model == "", ""), else_="/" + c.model)
    told = exists().where(
        alerts.c.account_id == c.account_id,
        alerts.c.kind == SOFT_LIMIT,
        alerts.c.subject == name + "@" + cast(c.soft_amount, Text),
        alerts.c.occurrence_ms == c.window_start_ms,
    )
    query = (
        select(allowances)
        .where(c.soft_amount.is_not(None), c.used >= c.soft_amount, ~told)
        .order_by(c.account_id, c.scope, c.resource, c.window_name, c.model)
        .limit(limit)
    )
    return [_reached(row) for row in await tx.execute(query)]


def subject_of(row: Allowance) -> str:
    """What a soft limit's alerts are told apart by: another amount is another thing to tell."""
    return f"{row.ref.name}@{row.soft}"


def _reached(row: Row[*tuple[Any, ...]]) -> Allowance:
    ref = AllowanceRef(row.account_id, row.scope, row.resource, row.window_name, row.model)
    figures = (row.limit_amount, row.used, row.leased, row.window_start_ms)
    return Allowance(ref, *figures, row.soft_amount, row.origin)
