"""The limit log on the wire.

Owns its shape. Must not know how refusals are gathered.
"""

import re
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.limits import amounts
from bursar.api.limits.amounts import Amount
from bursar.edge import pages
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, format_moment
from bursar.service.access import ProvisioningPrincipal
from bursar.service.limits import refusals
from bursar.store.limits.refusals import Position, RefusalFilter, RefusalRow

_POSITION: Final = re.compile(r"([0-9]{1,18})\n([\x21-\x7e]{1,350})")


class RefusalShape(TypedDict):
    """What one limit refused in one second: `count` calls, of which the first is described."""

    at: Moment
    allowance: str
    resource: str
    window: str
    limit: Amount | None
    key_id: int
    model: str
    endpoint: str
    status: int
    count: int


class RefusalListShape(TypedDict):
    """A page of refusals, newest first; `next_cursor` is null on the last one."""

    refusals: list[RefusalShape]
    next_cursor: str | None


async def list_refusals(call: Call[ProvisioningPrincipal]) -> Response:
    """Which of your limits refused which calls, one line for each limit and second.

    A refusal appears within some seconds, and is kept for `limit_log_days`.
    """
    account_id, query = call.caller.account_id, call.query
    list_name = f"refusals {account_id}"
    where = RefusalFilter(
        key_id=query.id("key_id"),
        model=query.name("model"),
        from_ms=query.moment("from"),
        to_ms=query.moment("to"),
    )
    limit = query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    cursor, behind = query.find("cursor"), None
    if cursor is not None:
        at_ms, allowance = pages.read(cursor, list_name, form=_POSITION)
        behind = Position(int(at_ms), allowance)
    async with call.plane.database.read() as tx:
        found = await refusals.list_refusals(
            tx, account_id=account_id, where=where, behind=behind, limit=limit + 1
        )
    page = found[:limit]
    next_cursor = None
    if len(found) > limit:
        next_cursor = pages.write(list_name, page[-1].at_ms, page[-1].allowance)
    return reply(RefusalListShape(refusals=[shape(row) for row in page], next_cursor=next_cursor))


def shape(row: RefusalRow) -> RefusalShape:
    """A refusal as JSON has it."""
    return RefusalShape(
        at=format_moment(row.at_ms),
        allowance=row.allowance,
        resource=row.resource,
        window=row.window_name,
        limit=amounts.write_any(row.limit_amount, resource=row.resource),
        key_id=row.key_id,
        model=row.model,
        endpoint=row.endpoint,
        status=row.status,
        count=row.count,
    )
