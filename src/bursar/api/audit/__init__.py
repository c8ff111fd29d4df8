"""The audit log on the wire: as JSON, as CSV, and as one JSON object a line.

Owns the shapes. Must not know what is noted, nor how rows are chained.
"""

import csv
import io
import json
import re
from typing import Any, Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.audit.events import OPERATOR_LOG, AuditAction
from bursar.core.errors import Invalid
from bursar.edge import pages
from bursar.edge.calls import Call, encode, reply
from bursar.edge.fields import Moment, format_moment, spreadsheet_text
from bursar.edge.query import Query
from bursar.service.access import OperatorPrincipal, ProvisioningPrincipal
from bursar.service.audit import log
from bursar.service.audit.log import Page
from bursar.store.audit.rows import AuditFilter, AuditRow

FILTERS: Final = ("action", "actor", "target", "from", "to", "cursor", "limit")
_POSITION: Final = re.compile(r"([0-9]{1,18})")
_NAME: Final = re.compile(r"[\x20-\x7e]{1,255}")
_ACTIONS: Final = frozenset(AuditAction) | {each.partition(".")[0] for each in AuditAction}
_CSV: Final = "text/csv"
_LINES: Final = "application/x-ndjson"


class AuditEventShape(TypedDict):
    """One change: who (`actor`) did what to which `target`, from where, in which request.

    `before` and `after` have what has changed; null is for what was not there, or is not there any
    more. `hash` is SHA-256 over the hash of the event before it and this one: see the guide.
    """

    id: int
    at: Moment
    action: str
    target: str
    actor: str
    address: str
    request_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str


class AuditHeadShape(TypedDict):
    """The end of a log: keep it elsewhere to be able to notice that rows were cut off."""

    id: int
    hash: str


class AuditListShape(TypedDict):
    """A page of a log, newest first; `next_cursor` is null on the last one."""

    events: list[AuditEventShape]
    head: AuditHeadShape | None
    next_cursor: str | None


async def list_own(call: Call[ProvisioningPrincipal]) -> Response:
    """What was changed in your account, newest first: who, what, from where, before and after.

    `Accept: text/csv` gives CSV and `Accept: application/x-ndjson` one JSON object a line, with the
    next page's cursor in `x-next-cursor`.
    """
    return await _answer(call, account_id=call.caller.account_id)


async def list_any(call: Call[OperatorPrincipal]) -> Response:
    """What was changed in an account, or (without `account_id`) in what belongs to none.

    The latter are prices, plans, operator keys and settings, and sign-ins of nobody. Formats are
    those of `GET /v1/account/audit`.
    """
    account_id = call.query.id("account_id") or OPERATOR_LOG
    async with call.plane.database.read() as tx:
        await log.require_log(tx, account_id=account_id)
    return await _answer(call, account_id=account_id)


async def _answer(call: Call[Any], *, account_id: int) -> Response:
    list_name = f"audit {account_id}"
    where = _filter(call.query)
    cursor = call.query.find("cursor")
    limit = call.query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    before_id = None if cursor is None else int(pages.read(cursor, list_name, form=_POSITION)[0])
    async with call.plane.database.read() as tx:
        found = await log.read(
            tx, account_id=account_id, where=where, before_id=before_id, limit=limit + 1
        )
    rows = found.rows[:limit]
    is_last = len(found.rows) <= limit
    following = None if is_last else pages.write(list_name, rows[-1].link.id)
    return _render(call.headers.get("accept", ""), Page(rows, found.head), following)


def _filter(query: Query) -> AuditFilter:
    action = query.find("action")
    if action is not None and action not in _ACTIONS:
        message = "An action is as key.create, or a noun as key for all that is done with keys."
        raise Invalid("invalid_value", message, param="action")
    return AuditFilter(
        action=action,
        actor=_name(query, "actor"),
        target=_name(query, "target"),
        from_ms=query.moment("from"),
        to_ms=query.moment("to"),
    )


def _name(query: Query, name: str) -> str | None:
    value = query.find(name)
    if value is not None and _NAME.fullmatch(value) is None:
        message = "It must be a kind and an id, as key:12."
        raise Invalid("invalid_value", message, param=name)
    return value


def _render(accept: str, page: Page, following: str | None) -> Response:
    events = [_shape(row) for row in page.rows]
    wanted = _wanted(accept)
    if wanted is None:
        head = page.head
        end = None if head is None else AuditHeadShape(id=head.id, hash=head.hash.hex())
        return reply(AuditListShape(events=events, head=end, next_cursor=following))
    headers = {} if following is None else {"x-next-cursor": following}
    body = _csv(events) if wanted == _CSV else b"".join(encode(each) + b"\n" for each in events)
    return Response(body, headers=headers, media_type=f"{wanted}; charset=utf-8")


def _wanted(accept: str) -> str | None:
    """The format that the client names first and does not refuse by a quality of 0; None: JSON."""
    for part in accept.split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip().lower() in {_CSV, _LINES}:
            is_refused = re.fullmatch(r"\s*q=0(\.0*)?\s*", parameters)
            return None if is_refused else kind.strip().lower()
    return None


def _shape(row: AuditRow) -> AuditEventShape:
    link = row.link
    return AuditEventShape(
        id=link.id,
        at=format_moment(link.at_ms),
        action=link.action,
        target=link.target,
        actor=link.actor,
        address=link.address,
        request_id=link.request_id,
        before=None if link.before is None else json.loads(link.before),
        after=None if link.after is None else json.loads(link.after),
        hash=row.hash.hex(),
    )


def _csv(events: list[AuditEventShape]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(AuditEventShape.__annotations__)
    for event in events:
        writer.writerow([_cell(value) for value in event.values()])
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, dict):
        value = encode(value).decode()
    return spreadsheet_text(value) if isinstance(value, str) else value
