"""Sums of usage: by what people group it, and of each key.

Owns reading roll-ups (and, for labels, events) into sums; they are written by settlement alone.
Must not know shapes of reports. Sums come back as int: PostgreSQL sums BIGINT as NUMERIC, which
would be Decimal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, Text, case, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB

from bursar.store.database import POSTGRESQL, ReadTx
from bursar.store.keys import has_label
from bursar.store.tables import keys, usage_daily, usage_events, usage_hourly

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
_COLUMNS: Final = {
    "key": "key_id",
    "project": "project_id",
    "user": "user_id",
    "model": "model",
    "endpoint": "endpoint",
}


@dataclass(frozen=True, slots=True)
class KeyUse:
    """When a key was last used (None: never), and what it spent since some day."""

    last_ms: int | None
    spent_nanos: int


@dataclass(frozen=True, slots=True)
class SummaryFilter:
    """Which usage: None is any; from `from_ms` up to but not including `to_ms`.

    `label` is a name and a value; where it is given, or groups are by a label, events are summed.
    """

    from_ms: int
    to_ms: int | None = None
    key_id: int | None = None
    project_id: int | None = None
    user_id: int | None = None
    model: str | None = None
    label: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class GroupSum:
    """What one group has used; `group` None is usage without such a thing."""

    group: str | int | None
    requests: int
    cost_nanos: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int


async def list_key_uses(
    tx: ReadTx, *, account_id: int, key_ids: Sequence[int], since_ms: int
) -> dict[int, KeyUse]:
    """Return keys' last uses, and what they spent since the day that starts at `since_ms`."""
    daily = usage_daily.c
    spent_query = (
        select(daily.key_id, func.sum(daily.cost_nanos).label("nanos"))
        .where(daily.account_id == account_id, daily.key_id.in_(key_ids), daily.day_ms >= since_ms)
        .group_by(daily.key_id)
    )
    spent = {row.key_id: int(row.nanos) for row in await tx.execute(spent_query)}
    # Two looks into the index for each key, instead of a walk through all that it ever used.
    newest, then = usage_daily.alias(), usage_daily.alias()
    last_day = (
        select(func.max(newest.c.day_ms))
        .where(newest.c.account_id == account_id, newest.c.key_id == keys.c.id)
        .correlate(keys)
        .scalar_subquery()
    )
    last_use = (
        # Roll-ups of the former version know no more than the day.
        select(func.max(case((then.c.last_ms > 0, then.c.last_ms), else_=then.c.day_ms)))
        .where(
            then.c.account_id == account_id,
            then.c.key_id == keys.c.id,
            then.c.day_ms == last_day,
        )
        .correlate(keys)
        .scalar_subquery()
    )
    last_query = select(keys.c.id, last_use).where(
        keys.c.account_id == account_id, keys.c.id.in_(key_ids)
    )
    found: list[tuple[int, int | None]] = [tuple(row) for row in await tx.execute(last_query)]
    return {key_id: KeyUse(last_ms, spent.get(key_id, 0)) for key_id, last_ms in found}


async def sum_by_group(
    tx: ReadTx, *, account_id: int, group_by: str, where: SummaryFilter
) -> list[GroupSum]:
    """Return sums by key, project, user, model, endpoint or `label:NAME`.

    Without labels the span must begin and end with an hour: then whole roll-ups are summed.
    """
    if group_by in _COLUMNS and where.label is None:
        table, moment = _rollup(where)
        requests: ColumnElement[Any] = func.sum(table.c.requests)
    else:
        table, moment = usage_events, usage_events.c.at_ms
        requests = func.count()
    group = _group(tx, table, group_by)
    query = (
        select(
            group,
            requests,
            func.sum(table.c.cost_nanos),
            func.sum(table.c.input_tokens),
            func.sum(table.c.cached_input_tokens),
            func.sum(table.c.output_tokens),
            func.sum(table.c.reasoning_tokens),
        )
        .where(table.c.account_id == account_id, moment >= where.from_ms)
        .where(*_conditions(tx, table, where))
        # By position: the name of a label is a parameter, and two parameters are never the same.
        .group_by(literal_column("1"))
    )
    if where.to_ms is not None:
        query = query.where(moment < where.to_ms)
    rows: list[list[Any]] = [list(row) for row in await tx.execute(query)]
    return [GroupSum(found, *map(int, sums)) for found, *sums in rows]


def _rollup(where: SummaryFilter) -> tuple[Table, ColumnElement[int]]:
    if where.from_ms % DAY_MS or (where.to_ms or 0) % DAY_MS:
        return usage_hourly, usage_hourly.c.hour_ms
    return usage_daily, usage_daily.c.day_ms


def _group(tx: ReadTx, table: Table, group_by: str) -> ColumnElement[Any]:
    column = _COLUMNS.get(group_by)
    if column is not None:
        # Roll-ups have 0 for none, because their keys may not be NULL.
        if column in {"key_id", "project_id", "user_id"}:
            return func.nullif(table.c[column], 0)
        return table.c[column]
    name = group_by.removeprefix("label:")
    labels = table.c.labels
    if tx.dialect == POSTGRESQL:
        return func.jsonb_extract_path_text(cast(labels, JSONB), name, type_=Text)
    return func.json_extract(labels, f'$."{name}"', type_=Text)


def _conditions(tx: ReadTx, table: Table, where: SummaryFilter) -> list[ColumnElement[bool]]:
    columns = {
        "key_id": where.key_id,
        "project_id": where.project_id,
        "user_id": where.user_id,
        "model": where.model,
    }
    found = [table.c[name] == value for name, value in columns.items() if value is not None]
    if where.label is not None:
        found.append(has_label(tx, table.c.labels, where.label))
    return found
