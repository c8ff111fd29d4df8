"""Limits on the wire: seeing and setting them.

Owns their shape: figures of cost are USD as text, all others are whole numbers. Must not know how a
limit works.
"""

import re
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.limits import amounts
from bursar.api.limits.amounts import UNITS, Amount, AmountIn
from bursar.core.allowances import Resource
from bursar.core.errors import Invalid
from bursar.edge import pages
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, format_moment
from bursar.edge.query import Query
from bursar.service.access import ProvisioningPrincipal
from bursar.service.limits import allowances, rules
from bursar.service.limits.allowances import Filter, Limit
from bursar.store.database import WriteTx

_POSITION: Final = re.compile(r"([\x21-\x7e]{1,350})")


class LimitShape(TypedDict):
    """How much of one resource one scope may use in one window, and what it has used.

    `leased` is set aside for requests by the servers; `limit` and `left` are null when there is no
    limit, `soft_limit` when there is no warning, `resets_at` when the window never ends, `model`
    when every model counts. `next_resets` are the next three, of which `resets_at` is the first.
    `origin` is `own` for what was set here and `plan` for what the account's plan gives.
    """

    name: str
    scope: str
    resource: str
    unit: str
    window: str
    model: str | None
    limit: Amount | None
    soft_limit: Amount | None
    used: Amount
    leased: Amount
    left: Amount | None
    origin: str
    resets_at: Moment | None
    next_resets: list[Moment]


class LimitListShape(TypedDict):
    """A page of limits, sorted by name; `next_cursor` is null on the last one."""

    limits: list[LimitShape]
    next_cursor: str | None


class LimitFields(Model):
    """A limit to set: hard (`limit`), soft (`soft_limit`) or both; null is no such limit.

    Amounts of cost are USD as text, all others whole numbers. No model: every model counts.
    """

    scope: str
    resource: str
    window: str
    model: str | None = None
    limit: AmountIn = None
    soft_limit: AmountIn = None


async def list_limits(call: Call[ProvisioningPrincipal]) -> Response:
    """Limits of your account, with what is used and left.

    `scope` asks for those of one scope, `resource` for those of one resource, `model` for those
    that count calls of a model. What your plan gives to keys, users and projects is shown where it
    has been used, and for the scope that is asked for.
    """
    account_id, query = call.caller.account_id, call.query
    list_name = f"limits {account_id}"
    most = query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.MAX_ITEMS)
    cursor, behind = query.find("cursor"), ""
    if cursor is not None:
        (behind,) = pages.read(cursor, list_name, form=_POSITION)
    scope, resource = query.find("scope"), query.find("resource")
    where = Filter(
        scope=None if scope is None else rules.parse_shown_scope(scope),
        resource=None if resource is None else rules.parse_resource(resource),
        model=query.name("model"),
    )
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        found = await allowances.list_limits(
            tx, account_id=account_id, now_ms=call.plane.now_ms(), where=where
        )
    rest = [limit for limit in found if limit.allowance.ref.name > behind]
    page = rest[:most]
    next_cursor = None
    if len(rest) > most:
        next_cursor = pages.write(list_name, page[-1].allowance.ref.name)
    return reply(LimitListShape(limits=[shape(each) for each in page], next_cursor=next_cursor))


async def set_limit(call: Call[ProvisioningPrincipal]) -> Response:
    """Set a limit of your account, a project, a user or a key.

    What is used stays, whatever the new amounts are: lowering a limit, raising it and setting it
    again never begin a new window. Every server follows within a second.
    """
    fields = check(LimitFields, call.document)
    scope, resource = rules.parse_scope(fields.scope), rules.parse_resource(fields.resource)
    window = rules.parse_window(fields.window, resource=resource)
    model = rules.clean_model(fields.model)
    limit = amounts.read(fields.limit, resource=resource, param="limit")
    soft = amounts.read(fields.soft_limit, resource=resource, param="soft_limit")

    async def effect(tx: WriteTx) -> Limit:
        return await allowances.set_limit(
            tx,
            account_id=call.caller.account_id,
            scope=scope,
            resource=resource,
            window=window,
            model=model,
            limit=limit,
            soft=soft,
            by=call.caller,
        )

    await call.plane.database.catch_up()
    return reply(shape(await call.plane.database.transact(effect)))


async def remove_limit(call: Call[ProvisioningPrincipal]) -> Response:
    """Lift a limit of your own; what your plan gives counts again, if it gives any."""
    scope = rules.parse_scope(required(call.query, "scope"))
    resource = rules.parse_resource(required(call.query, "resource"))
    window = rules.parse_window(required(call.query, "window"), resource=resource)
    model = rules.clean_model(call.query.find("model"))

    async def effect(tx: WriteTx) -> None:
        await allowances.remove_limit(
            tx,
            account_id=call.caller.account_id,
            scope=scope,
            resource=resource,
            window=window,
            model=model,
            by=call.caller,
        )

    await call.plane.database.transact(effect)
    return Response(status_code=204)


def required(query: Query, name: str) -> str:
    """Return a parameter that must be given; raises Invalid (`missing_field`)."""
    value = query.find(name)
    if value is None:
        raise Invalid("missing_field", "This parameter is required.", param=name)
    return value


def shape(limit: Limit) -> LimitShape:
    """A limit as JSON has it."""
    allowance, ref = limit.allowance, limit.allowance.ref
    resource = ref.resource
    return LimitShape(
        name=ref.name,
        scope=ref.scope,
        resource=resource,
        unit=UNITS[Resource(resource)],
        window=ref.window,
        model=ref.model or None,
        limit=amounts.write_any(allowance.limit, resource=resource),
        soft_limit=amounts.write_any(allowance.soft, resource=resource),
        used=amounts.write(allowance.used, resource=resource),
        leased=amounts.write(allowance.leased, resource=resource),
        left=amounts.write_any(allowance.left, resource=resource),
        origin=allowance.origin,
        resets_at=None if limit.resets_at_ms is None else format_moment(limit.resets_at_ms),
        next_resets=[format_moment(moment) for moment in limit.next_resets_ms],
    )
