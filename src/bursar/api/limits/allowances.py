"""Limits on the wire.

Owns their shape: figures of cost are USD as text, all others are whole numbers. Must not know how a
limit works.
"""

from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.allowances import Resource
from bursar.core.money import format_usd
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, format_moment
from bursar.service.access import ProvisioningPrincipal
from bursar.service.limits import allowances
from bursar.service.limits.allowances import Limit

_UNITS: Final = {
    Resource.COST: "usd",
    Resource.REQUESTS: "requests",
    Resource.TOKENS: "tokens",
    Resource.CONCURRENCY: "calls",
}


class LimitShape(TypedDict):
    """How much of one resource one scope may use in one window, and what it has used.

    `leased` is set aside for requests by the servers; `limit` and `left` are null when there is no
    limit, `resets_at` when the window never ends, `model` when every model counts.
    """

    name: str
    scope: str
    resource: str
    unit: str
    window: str
    model: str | None
    limit: str | int | None
    used: str | int
    leased: str | int
    left: str | int | None
    resets_at: Moment | None


class LimitListShape(TypedDict):
    """All limits of an account."""

    limits: list[LimitShape]


async def list_limits(call: Call[ProvisioningPrincipal]) -> Response:
    """Every limit of your account, with what is used and left."""
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        limits = await allowances.list_limits(
            tx, account_id=call.caller.account_id, now_ms=call.plane.now_ms()
        )
    return reply(LimitListShape(limits=[shape(limit) for limit in limits]))


def shape(limit: Limit) -> LimitShape:
    """A limit as JSON has it."""
    allowance, ref = limit.allowance, limit.allowance.ref

    def amount(value: int) -> str | int:
        return format_usd(value) if ref.resource == Resource.COST else value

    return LimitShape(
        name=ref.name,
        scope=ref.scope,
        resource=ref.resource,
        unit=_UNITS[Resource(ref.resource)],
        window=ref.window,
        model=ref.model or None,
        limit=None if allowance.limit is None else amount(allowance.limit),
        used=amount(allowance.used),
        leased=amount(allowance.leased),
        left=None if allowance.left is None else amount(allowance.left),
        resets_at=None if limit.resets_at_ms is None else format_moment(limit.resets_at_ms),
    )
