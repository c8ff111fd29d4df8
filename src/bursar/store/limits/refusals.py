"""Refusals by limits, for people to see which limit said no, when and to whom.

Owns the table `limit_log`: one row for each limit and second, however many calls it refused. Must
not know how refusals are gathered (that is `worker.refusals`).
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

from sqlalchemy import delete, select, tuple_

from bursar.core.allowances import Resource
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import limit_log

# So many are forgotten by one statement, whose locks are then soon gone.
_MANY: Final = 10_000


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """What one limit refused in the second that began at `at_ms`.

    Key, model, endpoint and status are those of the first call, `limit_amount` (in the unit of the
    resource) is the limit at that time, `count` says how many calls there were.
    """

    account_id: int
    at_ms: int
    allowance: str
    key_id: int
    model: str
    endpoint: str
    status: int
    resource: str
    window_name: str
    limit_amount: int | None
    count: int


@dataclass(frozen=True, slots=True)
class RefusalFilter:
    """Which refusals: None is any; from `from_ms` up to but not including `to_ms`.

    With `is_rate` only those by limits of something else than cost.
    """

    key_id: int | None = None
    model: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    is_rate: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the list: just behind the refusal with these coordinates."""

    at_ms: int
    allowance: str


# Once a second and worker: written down, because putting it together anew takes longer than the
# database does.
_ADD_ARRAYS: Final = """
    INSERT INTO limit_log AS l (account_id, at_ms, allowance, key_id, model, endpoint, status,
                                resource, window_name, limit_amount, count)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[],
                         $6::text[], $7::bigint[], $8::text[], $9::text[], $10::bigint[],
                         $11::bigint[])
    ON CONFLICT (account_id, at_ms, allowance) DO UPDATE SET count = l.count + excluded.count
"""
_ADD_ROW: Final = """
    INSERT INTO limit_log (account_id, at_ms, allowance, key_id, model, endpoint, status,
                           resource, window_name, limit_amount, count)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (account_id, at_ms, allowance) DO UPDATE SET count = count + excluded.count
"""


async def add_refusals(tx: WriteTx, *, rows: Sequence[RefusalRow]) -> None:
    """Store refusals; those of a limit and second that has a row are added to its count.

    No two of them may be of the same limit and second.
    """
    # In one order, so that two workers who saw the same limits do not wait for each other.
    ordered = sorted(rows, key=lambda row: (row.account_id, row.at_ms, row.allowance))
    values = [astuple(row) for row in ordered]
    if tx.dialect == POSTGRESQL:
        columns = tuple(list(column) for column in zip(*values, strict=True))
        await tx.driver(_ADD_ARRAYS, columns)
    else:
        await tx.driver(_ADD_ROW, values)


async def list_refusals(
    tx: ReadTx, *, account_id: int, where: RefusalFilter, behind: Position | None, limit: int
) -> list[RefusalRow]:
    """Return the account's refusals, newest first."""
    c = limit_log.c
    query = (
        select(limit_log)
        .where(c.account_id == account_id)
        .order_by(c.at_ms.desc(), c.allowance.desc())
        .limit(limit)
    )
    if where.key_id is not None:
        query = query.where(c.key_id == where.key_id)
    if where.model is not None:
        query = query.where(c.model == where.model)
    if where.from_ms is not None:
        query = query.where(c.at_ms >= where.from_ms)
    if where.to_ms is not None:
        query = query.where(c.at_ms < where.to_ms)
    if where.is_rate:
        query = query.where(c.resource != Resource.COST)
    if behind is not None:
        query = query.where(tuple_(c.at_ms, c.allowance) < (behind.at_ms, behind.allowance))
    return [RefusalRow(**row._mapping) for row in await tx.execute(query)]


async def delete_before(tx: WriteTx, *, at_ms: int) -> int:
    """Forget some of the refusals older than `at_ms`; how many (0: there were none)."""
    c = limit_log.c
    old = select(c.account_id, c.at_ms, c.allowance).where(c.at_ms < at_ms).limit(_MANY)
    statement = delete(limit_log).where(tuple_(c.account_id, c.at_ms, c.allowance).in_(old))
    return (await tx.execute(statement)).rowcount
