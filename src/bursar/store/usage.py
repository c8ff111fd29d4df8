"""Usage as reports need it: sums of the daily roll-up, and single events.

Owns reading `usage_daily` and `usage_events`; they are written by settlement alone. Must not know
shapes of reports. Sums come back as int: PostgreSQL sums BIGINT as NUMERIC, which would be Decimal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Row, Select, func, select, tuple_

from bursar.store.database import ReadTx
from bursar.store.keys import has_label
from bursar.store.tables import usage_daily, usage_events


@dataclass(frozen=True, slots=True)
class Sum:
    """What belongs to one day, model or key; `input_tokens` includes cached ones."""

    requests: int
    cost_nanos: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class EventRow:
    """One usage event as its account may see it; which upstream served it is not the account's.

    `key_id` None: no key was used for it.
    """

    at_ms: int
    event_id: str
    key_id: int | None
    user_id: int | None
    project_id: int | None
    product: str
    endpoint: str
    model: str
    outcome: str
    is_stream: bool
    is_estimated: bool
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    quantities: str | None
    cost_nanos: int
    duration_ms: int
    first_byte_ms: int
    labels: str | None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events: None is any; from `from_ms` up to but not including `to_ms`.

    `label` is a name and a value, or a name alone (value None).
    """

    key_id: int | None = None
    model: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    project_id: int | None = None
    label: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Days:
    """Which days: those that begin before `to_ms`, of one key or (None) of all."""

    to_ms: int
    key_id: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list of events: just behind the event with these coordinates."""

    at_ms: int
    event_id: str


async def is_settled(tx: ReadTx, *, account_id: int, at_ms: int, event_id: str) -> bool:
    """Whether this event has been charged."""
    columns = usage_events.c
    query = select(columns.event_id).where(
        columns.account_id == account_id, columns.at_ms == at_ms, columns.event_id == event_id
    )
    return (await tx.execute(query)).first() is not None


async def sum_by_day(
    tx: ReadTx, *, account_id: int, from_ms: int, days: Days | None = None
) -> dict[int, Sum]:
    """Sum usage by the day's start (UTC, ms) since the day that starts at `from_ms`."""
    rows = await tx.execute(_sums(usage_daily.c.day_ms, account_id, from_ms, days))
    return {row[0]: _sum(row) for row in rows}


async def sum_by_model(
    tx: ReadTx, *, account_id: int, from_ms: int, days: Days | None = None
) -> dict[str, Sum]:
    """Sum usage by model since the day that starts at `from_ms`."""
    rows = await tx.execute(_sums(usage_daily.c.model, account_id, from_ms, days))
    return {row[0]: _sum(row) for row in rows}


async def sum_by_key(
    tx: ReadTx, *, account_id: int, from_ms: int, days: Days | None = None
) -> dict[int, Sum]:
    """Sum usage by key id since the day that starts at `from_ms`."""
    rows = await tx.execute(_sums(usage_daily.c.key_id, account_id, from_ms, days))
    return {row[0]: _sum(row) for row in rows}


async def sum_by_project(tx: ReadTx, *, account_id: int, from_ms: int) -> dict[int, Sum]:
    """Sum usage by project id since the day that starts at `from_ms`; 0 is of no project."""
    rows = await tx.execute(_sums(usage_daily.c.project_id, account_id, from_ms, None))
    return {row[0]: _sum(row) for row in rows}


async def cost_of_models_by_day(
    tx: ReadTx, *, account_id: int, from_ms: int, days: Days, models: Sequence[str]
) -> dict[tuple[int, str], int]:
    """Sum in nano-USD what each of these models cost on each day (its start) that it was used."""
    daily = usage_daily.c
    query = _costs(daily.model, account_id, from_ms, days).where(daily.model.in_(models))
    return _by_day(await tx.execute(query))


async def cost_of_keys_by_day(
    tx: ReadTx, *, account_id: int, from_ms: int, days: Days, key_ids: Sequence[int]
) -> dict[tuple[int, int], int]:
    """Sum in nano-USD what each of these keys cost on each day (its start) that it was used."""
    daily = usage_daily.c
    query = _costs(daily.key_id, account_id, from_ms, days).where(daily.key_id.in_(key_ids))
    return _by_day(await tx.execute(query))


async def count_events(tx: ReadTx, *, account_id: int, where: EventFilter) -> int:
    """Return how many events of the account there are."""
    query = select(func.count()).where(*_conditions(tx, account_id, where))
    return int((await tx.execute(query)).scalar_one())


async def list_events(
    tx: ReadTx,
    *,
    account_id: int,
    where: EventFilter,
    behind: Position | None,
    limit: int,
    is_oldest_first: bool = False,
    skip: int = 0,
) -> list[EventRow]:
    """Return the account's events, newest first if not the oldest, behind a position or skipped."""
    event = usage_events.c
    place = tuple_(event.at_ms, event.event_id)
    order = (event.at_ms, event.event_id)
    query = (
        select(
            event.at_ms,
            event.event_id,
            event.key_id,
            event.user_id,
            event.project_id,
            event.product,
            event.endpoint,
            event.model,
            event.outcome,
            event.is_stream,
            event.is_estimated,
            event.input_tokens,
            event.cached_input_tokens,
            event.output_tokens,
            event.reasoning_tokens,
            event.quantities,
            event.cost_nanos,
            event.duration_ms,
            event.first_byte_ms,
            event.labels,
        )
        .where(*_conditions(tx, account_id, where))
        .order_by(*(order if is_oldest_first else (column.desc() for column in order)))
        .limit(limit)
        .offset(skip or None)
    )
    if behind is not None:
        position = (behind.at_ms, behind.event_id)
        query = query.where(place > position if is_oldest_first else place < position)
    return [_event(row) for row in await tx.execute(query)]


def _by_day(rows: Iterable[Row[*tuple[Any, ...]]]) -> dict[tuple[int, Any], int]:
    return {(day_ms, part): int(nanos) for day_ms, part, nanos in rows}


def _conditions(tx: ReadTx, account_id: int, where: EventFilter) -> list[ColumnElement[bool]]:
    event = usage_events.c
    found = [event.account_id == account_id]
    if where.key_id is not None:
        found.append(event.key_id == where.key_id)
    if where.model is not None:
        found.append(event.model == where.model)
    if where.from_ms is not None:
        found.append(event.at_ms >= where.from_ms)
    if where.to_ms is not None:
        found.append(event.at_ms < where.to_ms)
    if where.project_id is not None:
        found.append(event.project_id == where.project_id)
    if where.label is not None:
        found.append(has_label(tx, event.labels, where.label))
    return found


def _costs(
    by: Column[int] | Column[str], account_id: int, from_ms: int, days: Days
) -> Select[*tuple[object, ...]]:
    daily = usage_daily.c
    return (
        select(daily.day_ms, by, func.sum(daily.cost_nanos))
        .where(*_within(account_id, from_ms, days))
        .group_by(daily.day_ms, by)
    )


def _within(account_id: int, from_ms: int, days: Days | None) -> list[ColumnElement[bool]]:
    daily = usage_daily.c
    found = [daily.account_id == account_id, daily.day_ms >= from_ms]
    if days is not None:
        found.append(daily.day_ms < days.to_ms)
        if days.key_id is not None:
            found.append(daily.key_id == days.key_id)
    return found


def _sums(
    by: Column[int] | Column[str], account_id: int, from_ms: int, days: Days | None
) -> Select[*tuple[object, ...]]:
    daily = usage_daily.c
    return (
        select(
            by,
            func.sum(daily.requests),
            func.sum(daily.cost_nanos),
            func.sum(daily.input_tokens),
            func.sum(daily.output_tokens),
        )
        .where(*_within(account_id, from_ms, days))
        .group_by(by)
    )


def _sum(row: Row[*tuple[object, ...]]) -> Sum:
    values: Sequence[Any] = row[1:]
    return Sum(*map(int, values))


def _event(row: Row[*tuple[object, ...]]) -> EventRow:
    values: list[Any] = list(row)
    values[2] = values[2] or None
    values[9], values[10] = bool(values[9]), bool(values[10])
    return EventRow(*values)
