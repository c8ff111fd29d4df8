"""Alerts on the wire.

Owns their shape. Must not know what is worth one.
"""

import json
import re
from typing import Any, Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.edge import pages
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, format_moment
from bursar.service.access import ProvisioningPrincipal
from bursar.service.limits import alerts
from bursar.store.limits.alerts import AlertRow

_POSITION: Final = re.compile(r"([0-9]{1,18})")


class AlertShape(TypedDict):
    """What somebody should look at: `kind` for programs, `message` for people.

    `details` has what there is to know, by kind. `soft_limit`: its `allowance`, `resource`,
    `window`, `soft_limit` and what was `used`. `leaked_key`: `key_id` and `key_name`, how the
    secret ends (`hint`), whether the key `is_disabled` now, and who said so (`source`).
    """

    id: int
    at: Moment
    kind: str
    message: str
    details: dict[str, Any]


class AlertListShape(TypedDict):
    """A page of alerts, newest first; `next_cursor` is null on the last one."""

    alerts: list[AlertShape]
    next_cursor: str | None


async def list_alerts(call: Call[ProvisioningPrincipal]) -> Response:
    """What your account was alerted to, newest first.

    A soft limit that is reached makes one alert in each of its windows, within some seconds.
    """
    account_id = call.caller.account_id
    list_name = f"alerts {account_id}"
    cursor = call.query.find("cursor")
    limit = call.query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    before_id = None if cursor is None else int(pages.read(cursor, list_name, form=_POSITION)[0])
    async with call.plane.database.read() as tx:
        found = await alerts.list_alerts(
            tx, account_id=account_id, before_id=before_id, limit=limit + 1
        )
    page = found[:limit]
    is_last = len(found) <= limit
    return reply(
        AlertListShape(
            alerts=[shape(row) for row in page],
            next_cursor=None if is_last else pages.write(list_name, page[-1].id),
        )
    )


def shape(row: AlertRow) -> AlertShape:
    """An alert as JSON has it."""
    details = json.loads(row.body)
    return AlertShape(
        id=row.id,
        at=format_moment(row.at_ms),
        kind=row.kind,
        message=str(details.pop("message", "")),
        details=details,
    )
