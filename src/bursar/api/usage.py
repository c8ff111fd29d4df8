"""Usage on the wire: the activity report, and events as JSON or CSV.

Owns their shapes, of which the report is NagaAI's, with `as_of` added. Must not know how usage is
summed.
"""

import csv
import io
import json
import re
from typing import Any, Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.money import format_usd
from bursar.edge import pages
from bursar.edge.calls import JSON, Call, encode, reply
from bursar.edge.fields import Moment, Usd, format_day, format_moment, spreadsheet_text
from bursar.service import usage
from bursar.service.access import ProvisioningPrincipal
from bursar.service.usage import Activity
from bursar.store.usage import EventFilter, EventRow, Position, Sum

_MAX_DAYS: Final = 30
_POSITION: Final = re.compile(r"([0-9]{1,18})\n([\x21-\x7e]{1,128})")


class TotalShape(TypedDict):
    """What was used in the whole period; cost in USD."""

    total_requests: int
    total_cost: Usd
    total_input_tokens: int
    total_output_tokens: int


class DayShape(TotalShape):
    """What was used on one day, in UTC."""

    date: str


class _PartShape(TypedDict):
    request_count: int
    total_cost: Usd
    total_input_tokens: int
    total_output_tokens: int


class ModelShape(_PartShape):
    """What one model was used for."""

    model_name: str


class KeyUsageShape(_PartShape):
    """What one key, deleted or not, was used for."""

    api_key_id: int
    api_key_name: str


class ProjectUsageShape(_PartShape):
    """What the keys of one project, deleted or not, were used for while they belonged to it."""

    project_id: int
    project_name: str


class ActivityShape(TypedDict):
    """A report: days newest first, models, keys and projects by use."""

    period_days: int
    total_stats: TotalShape
    daily_stats: list[DayShape]
    top_models: list[ModelShape]
    api_key_usage: list[KeyUsageShape]
    project_usage: list[ProjectUsageShape]
    as_of: Moment


class EventShape(TypedDict):
    """One request, or whatever else was metered; `input_tokens` includes cached ones."""

    id: str
    at: Moment
    key_id: int | None
    model: str
    product: str
    endpoint: str
    outcome: str
    is_stream: bool
    is_estimated: bool
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    quantities: dict[str, Any] | None
    cost: Usd
    duration_ms: int
    first_byte_ms: int
    labels: dict[str, Any] | None
    project_id: int | None
    user_id: int | None


class EventListShape(TypedDict):
    """A page of events, newest first; `next_cursor` is null on the last one."""

    events: list[EventShape]
    next_cursor: str | None


async def show_activity(call: Call[ProvisioningPrincipal]) -> Response:
    """What your account used in the last days, in sum and by day, model, key and project.

    The report may be some minutes old: `as_of` and the header `age` say so. `fresh=true`, or
    `cache-control: no-cache`, has it made anew.
    """
    days = call.query.number("days", low=1, high=_MAX_DAYS, default=_MAX_DAYS)
    is_fresh = call.query.flag("fresh") or "no-cache" in call.headers.get("cache-control", "")
    plane, account_id = call.plane, call.caller.account_id
    asked, now_ms = (account_id, days), plane.now_ms()
    kept = None if is_fresh else plane.reports.find(asked, now_ms=now_ms)
    if kept is None:
        await plane.database.catch_up()
        async with plane.database.read() as tx:
            report = await usage.report(tx, account_id=account_id, days=days, now_ms=now_ms)
        kept = (now_ms, encode(_activity(report, as_of_ms=now_ms)))
        plane.reports.keep(asked, kept[1], now_ms=now_ms)
    age = {"age": str((now_ms - kept[0]) // 1000)}
    return Response(kept[1], headers=age, media_type=JSON)


async def list_events(call: Call[ProvisioningPrincipal]) -> Response:
    """Your account's usage, one request a line; as CSV for `accept: text/csv`."""
    account_id, query = call.caller.account_id, call.query
    list_name = f"events {account_id}"
    where = EventFilter(
        key_id=query.id("key_id"),
        model=query.name("model"),
        from_ms=query.moment("from"),
        to_ms=query.moment("to"),
        project_id=query.id("project_id"),
        label=query.label("label"),
    )
    limit = query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    behind = _position(query.find("cursor"), list_name)
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        found = await usage.list_events(
            tx, account_id=account_id, where=where, behind=behind, limit=limit + 1
        )
    page = found[:limit]
    cursor = None
    if len(found) > limit:
        cursor = pages.write(list_name, page[-1].at_ms, page[-1].event_id)
    events = [_event(row) for row in page]
    if _wants_csv(call.headers.get("accept", "")):
        headers = {} if cursor is None else {"x-next-cursor": cursor}
        return Response(_csv(events), headers=headers, media_type="text/csv; charset=utf-8")
    return reply(EventListShape(events=events, next_cursor=cursor))


def _position(cursor: str | None, list_name: str) -> Position | None:
    if cursor is None:
        return None
    at_ms, event_id = pages.read(cursor, list_name, form=_POSITION)
    return Position(int(at_ms), event_id)


def _activity(report: Activity, *, as_of_ms: int) -> ActivityShape:
    return ActivityShape(
        period_days=report.days,
        total_stats=_total(report.total),
        daily_stats=[DayShape(date=format_day(day), **_total(s)) for day, s in report.by_day],
        top_models=[ModelShape(model_name=name, **_part(s)) for name, s in report.by_model],
        api_key_usage=[
            KeyUsageShape(api_key_id=key_id, api_key_name=name, **_part(s))
            for key_id, name, s in report.by_key
        ],
        project_usage=[
            ProjectUsageShape(project_id=project_id, project_name=name, **_part(s))
            for project_id, name, s in report.by_project
        ],
        as_of=format_moment(as_of_ms),
    )


def _total(sums: Sum) -> TotalShape:
    return TotalShape(
        total_requests=sums.requests,
        total_cost=format_usd(sums.cost_nanos),
        total_input_tokens=sums.input_tokens,
        total_output_tokens=sums.output_tokens,
    )


def _part(sums: Sum) -> _PartShape:
    return _PartShape(
        request_count=sums.requests,
        total_cost=format_usd(sums.cost_nanos),
        total_input_tokens=sums.input_tokens,
        total_output_tokens=sums.output_tokens,
    )


def _event(row: EventRow) -> EventShape:
    return EventShape(
        id=row.event_id,
        at=format_moment(row.at_ms),
        key_id=row.key_id,
        model=row.model,
        product=row.product,
        endpoint=row.endpoint,
        outcome=row.outcome,
        is_stream=row.is_stream,
        is_estimated=row.is_estimated,
        input_tokens=row.input_tokens,
        cached_input_tokens=row.cached_input_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
        quantities=None if row.quantities is None else json.loads(row.quantities),
        cost=format_usd(row.cost_nanos),
        duration_ms=row.duration_ms,
        first_byte_ms=row.first_byte_ms,
        labels=None if row.labels is None else json.loads(row.labels),
        project_id=row.project_id,
        user_id=row.user_id,
    )


def _wants_csv(accept: str) -> bool:
    """Whether the client names CSV, and does not refuse it by a quality of 0."""
    for part in accept.split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip().lower() == "text/csv":
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", parameters)
    return False


def _csv(events: list[EventShape]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    columns = list(EventShape.__annotations__)
    writer.writerow(columns)
    for event in events:
        writer.writerow([_cell(value) for value in event.values()])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        value = encode(value).decode()
    # A model's name or a label is somebody's text.
    return spreadsheet_text(value) if isinstance(value, str) else value
