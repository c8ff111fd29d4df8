"""The audit logs of a test's database, as rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from bursar.store.database import Database
from bursar.store.tables import audit


@dataclass(frozen=True)
class Noted:
    """One row of a log, for people."""

    account_id: int
    id: int
    action: str
    target: str
    actor: str
    address: str
    request_id: str
    before: Any
    after: Any


async def read(database: Database, *actions: str) -> list[Noted]:
    """Every row of every log with these actions (none: all), in the order of writing."""
    query = select(audit).order_by(audit.c.account_id, audit.c.id)
    if actions:
        query = query.where(audit.c.action.in_(actions))
    async with database.read() as tx:
        found = (await tx.execute(query)).all()
    return [_noted(row._mapping) for row in found]


def _noted(row: Any) -> Noted:
    def parsed(text: str | None) -> Any:
        return None if text is None else json.loads(text)

    plain = {
        name: row[name]
        for name in ("account_id", "id", "action", "target", "actor", "address", "request_id")
    }
    return Noted(**plain, before=parsed(row["before"]), after=parsed(row["after"]))
