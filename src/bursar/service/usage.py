"""Usage: the activity report and the list of events.

Owns what a report covers. Days are those of UTC, as the roll-up keeps them: a report of N days is
today and the N - 1 days before it. Must not know how a report is shown or how long it is kept.
"""

from dataclasses import dataclass

from bursar.core.errors import Invalid
from bursar.store import keys, usage
from bursar.store.database import ReadTx
from bursar.store.tenants import projects
from bursar.store.usage import EventFilter, EventRow, Position, Sum

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Activity:
    """A report: days newest first, models, keys and projects by use, none without a request."""

    days: int
    total: Sum
    by_day: list[tuple[int, Sum]]
    by_model: list[tuple[str, Sum]]
    by_key: list[tuple[int, str, Sum]]
    by_project: list[tuple[int, str, Sum]]


async def report(tx: ReadTx, *, account_id: int, days: int, now_ms: int) -> Activity:
    """Return what the account used in the last `days` days (1 to 30)."""
    from_ms = now_ms - now_ms % _DAY_MS - (days - 1) * _DAY_MS
    by_day = await usage.sum_by_day(tx, account_id=account_id, from_ms=from_ms)
    by_model = await usage.sum_by_model(tx, account_id=account_id, from_ms=from_ms)
    by_key = await usage.sum_by_key(tx, account_id=account_id, from_ms=from_ms)
    by_project = await usage.sum_by_project(tx, account_id=account_id, from_ms=from_ms)
    key_names = await keys.list_names(tx, account_id=account_id)
    project_names = await projects.list_names(tx, account_id=account_id)
    return Activity(
        days=days,
        total=_total(list(by_day.values())),
        by_day=sorted(by_day.items(), reverse=True),
        by_model=sorted(by_model.items(), key=lambda item: (*_by_use(item[1]), item[0])),
        by_key=_named(by_key, key_names),
        by_project=_named(by_project, project_names),
    )


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
    """Return the account's usage events, newest first unless the oldest are wanted first.

    Behind a position, or (quick only near the list's beginning) so many skipped. Raises Invalid for
    a reversed span.
    """
    _check_span(where)
    return await usage.list_events(
        tx,
        account_id=account_id,
        where=where,
        behind=behind,
        limit=limit,
        is_oldest_first=is_oldest_first,
        skip=skip,
    )


async def count_events(tx: ReadTx, *, account_id: int, where: EventFilter) -> int:
    """Return how many usage events the account has; raises Invalid for a reversed span."""
    _check_span(where)
    return await usage.count_events(tx, account_id=account_id, where=where)


def _check_span(where: EventFilter) -> None:
    if where.from_ms is not None and where.to_ms is not None and where.from_ms > where.to_ms:
        raise Invalid("invalid_range", "The span must not end before it begins.", param="from")


def _named(sums: dict[int, Sum], names: dict[int, str]) -> list[tuple[int, str, Sum]]:
    ordered = sorted(sums.items(), key=lambda item: (*_by_use(item[1]), item[0]))
    # What belongs to nothing has the id 0 in roll-ups.
    return [(each, names.get(each, ""), found) for each, found in ordered if each]


def _total(sums: list[Sum]) -> Sum:
    return Sum(
        requests=sum(part.requests for part in sums),
        cost_nanos=sum(part.cost_nanos for part in sums),
        input_tokens=sum(part.input_tokens for part in sums),
        output_tokens=sum(part.output_tokens for part in sums),
    )


def _by_use(sums: Sum) -> tuple[int, int]:
    return (-sums.requests, -sums.cost_nanos)
