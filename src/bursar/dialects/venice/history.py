"""Usage events as Venice bills them: walked by a cursor, paged by number, as CSV, or as totals.

Owns their shapes. A walk's filters travel inside its cursor, which is sent alone. Asked for without
a parameter by a client that names no media type (venice-sdk), the history is one object of totals
of the calendar month instead: that client reads its whole numbers from there. Must not know how
usage is stored.
"""

import csv
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response

from bursar.core.errors import Invalid
from bursar.core.money import format_usd
from bursar.dialects.venice import fields
from bursar.edge import pages
from bursar.edge.calls import JSON, Call, Endpoint, reply
from bursar.edge.fields import spreadsheet_text
from bursar.edge.query import Query
from bursar.service import analytics, ledger, usage
from bursar.service.access import ProvisioningPrincipal
from bursar.service.analytics import Totals
from bursar.store.usage import EventFilter, EventRow, Position

_CSV: Final = "text/csv"
_LIST: Final = "venice usage"
_CURSOR: Final = re.compile(
    r"([0-9]{1,18})\n([\x21-\x7e]{1,128})\n([0-9]{1,18})\n([0-9]{1,18})\n([0-9]{1,4})"
)
_NEVER_MS: Final = 10**17
_CURRENCIES: Final = frozenset({"USD", "DIEM", "VCU", "BUNDLED_CREDITS", "EARNED_CREDITS"})
_PAGE_SIZES: Final = (10, 1_000)
_PAGED: Final = (200, 500)
_COLUMNS: Final = (
    *("timestamp", "sku", "pricePerUnitUsd", "units", "amount", "currency", "notes", "apiKeyId"),
    *("requestId", "promptTokens", "completionTokens", "inferenceExecutionTime"),
)
_NOTES: Final = "API Inference"


def walker(shows_totals: bool) -> Endpoint:
    """Return the endpoint of the history; without `shows_totals` it is always a list."""

    async def walk(call: Call[ProvisioningPrincipal]) -> Response:
        accept = call.headers.get("accept", "")
        names_kind = JSON in accept or _CSV in accept
        if shows_totals and not call.query.names and not names_kind:
            return await _show_totals(call)
        return await _walk(call, as_csv=_CSV in accept)

    return walk


async def list_pages(call: Call[ProvisioningPrincipal]) -> Response:
    """Usage events by pages that are counted, the newest first if not asked otherwise."""
    query, account_id = call.query, call.caller.account_id
    page = fields.read_page(query, default=_PAGED[0], most=_PAGED[1])
    order = query.find("sortOrder") or "desc"
    if order not in {"asc", "desc"}:
        raise Invalid("invalid_value", "It must be asc or desc.", param="sortOrder")
    where = EventFilter(
        from_ms=fields.find_moment(query, "startDate"),
        to_ms=fields.find_moment(query, "endDate"),
    )
    found: list[EventRow] = []
    total = 0
    if _is_charged_in(query):
        await call.plane.database.catch_up()
        async with call.plane.database.read() as tx:
            total = await usage.count_events(tx, account_id=account_id, where=where)
            found = await usage.list_events(
                tx,
                account_id=account_id,
                where=where,
                behind=None,
                limit=page.size,
                is_oldest_first=order == "asc",
                skip=page.start,
            )
    headers = page.headers(total)
    if _CSV in call.headers.get("accept", ""):
        return _as_csv(found, headers, now_ms=call.plane.now_ms())
    counts = {"limit": page.size, "page": page.number}
    pagination = {**counts, "total": total, "totalPages": page.count(total)}
    answer = reply({"data": [_entry(row) for row in found], "pagination": pagination})
    answer.headers.update(headers)
    return answer


async def _walk(call: Call[ProvisioningPrincipal], *, as_csv: bool) -> Response:
    account_id, query = call.caller.account_id, call.query
    list_name = f"{_LIST} {account_id}"
    cursor = query.find("cursor")
    behind = None
    if cursor is None:
        where, size = _first(query)
    else:
        if query.names != ["cursor"]:
            message = "The filters travel inside the cursor: send it alone."
            raise Invalid("invalid_value", message, param="cursor")
        numbers = pages.read(cursor, list_name, form=_CURSOR)
        behind = Position(int(numbers[0]), numbers[1])
        where, size = EventFilter(from_ms=int(numbers[2]), to_ms=int(numbers[3])), int(numbers[4])
    found: list[EventRow] = []
    if _is_charged_in(query):
        await call.plane.database.catch_up()
        async with call.plane.database.read() as tx:
            found = await usage.list_events(
                tx,
                account_id=account_id,
                where=where,
                behind=behind,
                limit=size + 1,
                is_oldest_first=True,
            )
    shown, following = found[:size], None
    if len(found) > size:
        last = shown[-1]
        span = (where.from_ms or 0, _NEVER_MS if where.to_ms is None else where.to_ms)
        following = pages.write(list_name, last.at_ms, last.event_id, *span, size)
    if as_csv:
        headers = {} if following is None else {"x-next-cursor": following}
        return _as_csv(shown, headers, now_ms=call.plane.now_ms())
    return reply({"data": [_entry(row) for row in shown], "nextCursor": following})


def _first(query: Query) -> tuple[EventFilter, int]:
    """The filters and the size with which a walk begins."""
    low, high = _PAGE_SIZES
    where = EventFilter(
        from_ms=fields.find_moment(query, "startTimestamp"),
        to_ms=fields.find_moment(query, "endTimestamp"),
    )
    return where, query.number("pageSize", low=low, high=high, default=high)


def _is_charged_in(query: Query) -> bool:
    """Whether anything is charged in the currency that is asked for: all is charged in USD."""
    currency = query.find("currency")
    if currency is not None and currency not in _CURRENCIES:
        message = f"The currencies are {', '.join(sorted(_CURRENCIES))}."
        raise Invalid("invalid_value", message, param="currency")
    return currency in {None, "USD"}


async def _show_totals(call: Call[ProvisioningPrincipal]) -> Response:
    account_id, plane = call.caller.account_id, call.plane
    await plane.database.catch_up()
    async with plane.database.read() as tx:
        month = await analytics.total_month(tx, account_id=account_id, now_ms=plane.now_ms())
        balance = await ledger.get_balance(tx, account_id=account_id)
    return reply(
        {
            "data": _totals(month, balance),
            "pagination": {"limit": 200, "page": 1, "total": month.total.requests, "totalPages": 1},
            "nextCursor": None,
        }
    )


def _totals(month: Totals, balance_nanos: int) -> dict[str, Any]:
    return {
        "total_usage": fields.milli_usd(month.total.cost_nanos),
        "current_period": datetime.fromtimestamp(month.from_ms / 1000, UTC).strftime("%Y-%m"),
        "credits_remaining": fields.milli_usd(balance_nanos),
        "usage_by_model": {
            model: {
                "requests": sums.requests,
                "tokens": sums.input_tokens + sums.output_tokens,
                "cost": fields.milli_usd(sums.cost_nanos),
            }
            for model, sums in month.by_model
        },
        "billing_period_start": fields.format_moment(month.from_ms),
        "billing_period_end": fields.format_moment(month.to_ms),
    }


def _entry(row: EventRow) -> dict[str, Any]:
    tokens = row.input_tokens + row.output_tokens
    return {
        "timestamp": fields.format_moment(row.at_ms),
        "sku": row.model,
        "pricePerUnitUsd": fields.price_of_unit(row.cost_nanos, tokens),
        "units": fields.units(tokens),
        "amount": fields.usd(-row.cost_nanos),
        "currency": "USD",
        "notes": _NOTES,
        "apiKeyId": None if row.key_id is None else str(row.key_id),
        "inferenceDetails": {
            "requestId": row.event_id,
            "promptTokens": row.input_tokens,
            "completionTokens": row.output_tokens,
            "inferenceExecutionTime": row.duration_ms,
        },
    }


def _as_csv(rows: Sequence[EventRow], headers: dict[str, str], *, now_ms: int) -> Response:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow(_line(row))
    moment = re.sub(r"[-:.]", "", fields.format_moment(now_ms))
    name = f"attachment; filename=billing-usage-history-{moment}.csv"
    headers = {**headers, "content-disposition": name}
    return Response(out.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")


def _line(row: EventRow) -> list[object]:
    tokens = row.input_tokens + row.output_tokens
    return [
        fields.format_moment(row.at_ms),
        spreadsheet_text(row.model),
        bytes(fields.price_of_unit(row.cost_nanos, tokens)).decode(),
        bytes(fields.units(tokens)).decode(),
        format_usd(-row.cost_nanos),
        "USD",
        _NOTES,
        row.key_id,
        row.event_id,
        row.input_tokens,
        row.output_tokens,
        row.duration_ms,
    ]
