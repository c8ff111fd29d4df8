"""The rows of the audit log: reading them, newest first or from the beginning of a chain.

Owns the queries. Must not know who may read, nor what a row says.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, func, or_, select

from bursar.core.audit.chains import Link
from bursar.store.database import ReadTx
from bursar.store.tables import audit, audit_heads

_AT_ONCE: Final = 500
_C: Final = audit.c
_FIELDS: Final = tuple(Link.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row and its hash."""

    link: Link
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the id and the hash of its last row."""

    account_id: int
    id: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows; None is any. `action` is one (`key.create`) or a noun (`key`) with all its verbs.

    From `from_ms` on and before `to_ms`.
    """

    action: str | None = None
    actor: str | None = None
    target: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


async def list_rows(
    tx: ReadTx, *, account_id: int, where: AuditFilter, before_id: int | None, limit: int
) -> list[AuditRow]:
    """Return rows of one log with ids below `before_id`, newest first."""
    query = select(audit).where(_C.account_id == account_id, *_conditions(where))
    if before_id is not None:
        query = query.where(_C.id < before_id)
    found = await tx.execute(query.order_by(_C.id.desc()).limit(limit))
    return [_row(row) for row in found]


async def read(tx: ReadTx) -> AsyncIterator[AuditRow]:
    """Yield every row of every log, chain by chain, each from its beginning."""
    query = select(audit).order_by(_C.account_id, _C.id)
    options = {"yield_per": _AT_ONCE}
    async with tx.connection.stream(query, execution_options=options) as rows:
        async for row in rows:
            yield _row(row)


async def list_heads(tx: ReadTx) -> list[Head]:
    """Return the end of every chain, by account."""
    query = select(audit_heads).order_by(audit_heads.c.account_id)
    return [Head(row.account_id, row.last_id, bytes(row.hash)) for row in await tx.execute(query)]


async def find_head(tx: ReadTx, *, account_id: int) -> Head | None:
    """Return the end of one chain; None where nothing has been noted."""
    query = select(audit_heads).where(audit_heads.c.account_id == account_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else Head(row.account_id, row.last_id, bytes(row.hash))


async def count_rows(tx: ReadTx) -> int:
    """How many rows there are in all logs."""
    return int((await tx.execute(select(func.count()).select_from(audit))).scalar_one())


def _conditions(where: AuditFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if where.action is not None:
        verbs = _C.action.startswith(f"{where.action}.", autoescape=True)
        found.append(or_(_C.action == where.action, verbs))
    if where.actor is not None:
        found.append(_C.actor == where.actor)
    if where.target is not None:
        found.append(_C.target == where.target)
    if where.from_ms is not None:
        found.append(_C.at_ms >= where.from_ms)
    if where.to_ms is not None:
        found.append(_C.at_ms < where.to_ms)
    return found


def _row(row: Row[*tuple[Any, ...]]) -> AuditRow:
    values = row._mapping
    return AuditRow(Link(**{name: values[name] for name in _FIELDS}), bytes(values["hash"]))
