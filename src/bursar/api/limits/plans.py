"""Plans on the wire, for operators.

Owns their shape: figures of cost are USD as text, all others are whole numbers. Must not know what
follows from a plan.
"""

import re
from functools import partial
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.limits import amounts
from bursar.api.limits.allowances import required
from bursar.api.limits.amounts import UNITS, Amount, AmountIn
from bursar.core.allowances import Resource
from bursar.edge import pages
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import Moment, format_moment, parse_path_id
from bursar.service.access import OperatorPrincipal
from bursar.service.limits import plans, rules
from bursar.service.limits.plans import Plan
from bursar.store.database import WriteTx
from bursar.store.limits.plans import PlanLimit

_LIST: Final = "plans"
_POSITION: Final = re.compile(r"([0-9]{1,18})")


class PlanLimitShape(TypedDict):
    """What every scope of a kind gets (`default_limit`), and the most that it may set for itself.

    `scope` is account, project, user or key. Null is no such figure.
    """

    scope: str
    resource: str
    unit: str
    window: str
    model: str | None
    default_limit: Amount | None
    most_limit: Amount | None


class PlanShape(TypedDict):
    """A plan and its limits."""

    id: int
    name: str
    created_at: Moment
    limits: list[PlanLimitShape]


class PlanListShape(TypedDict):
    """A page of plans; `next_cursor` is null on the last one."""

    plans: list[PlanShape]
    next_cursor: str | None


class PlanFields(Model):
    """A plan's name."""

    name: str


class PlanLimitFields(Model):
    """A limit of a plan: a default, a bound or both; null is no such figure.

    Amounts of cost are USD as text, all others whole numbers. No model: every model counts.
    """

    scope: str
    resource: str
    window: str
    model: str | None = None
    default_limit: AmountIn = None
    most_limit: AmountIn = None


async def list_plans(call: Call[OperatorPrincipal]) -> Response:
    """Every plan, oldest first."""
    cursor = call.query.find("cursor")
    limit = call.query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    after_id = 0 if cursor is None else int(pages.read(cursor, _LIST, form=_POSITION)[0])
    async with call.plane.database.read() as tx:
        found = await plans.list_plans(tx, after_id=after_id, limit=limit + 1)
    page = found[:limit]
    is_last = len(found) <= limit
    return reply(
        PlanListShape(
            plans=[shape(plan) for plan in page],
            next_cursor=None if is_last else pages.write(_LIST, page[-1].row.id),
        )
    )


async def create(call: Call[OperatorPrincipal]) -> Response:
    """Make a plan without limits."""
    new = check(PlanFields, call.document)

    async def effect(tx: WriteTx) -> PlanShape:
        return shape(await plans.create(tx, name=new.name))

    return await carry_out(call, effect, status=201)


async def show(call: Call[OperatorPrincipal]) -> Response:
    """One plan."""
    plan_id = parse_path_id(call.path["plan_id"])
    async with call.plane.database.read() as tx:
        return reply(shape(await plans.get(tx, plan_id=plan_id)))


async def rename(call: Call[OperatorPrincipal]) -> Response:
    """Give a plan another name."""
    plan_id = parse_path_id(call.path["plan_id"])

    async def effect(tx: WriteTx) -> Plan:
        await plans.get(tx, plan_id=plan_id)
        fields = check(PlanFields, call.document)
        return await plans.rename(tx, plan_id=plan_id, name=fields.name)

    return reply(shape(await call.plane.database.transact(effect)))


async def delete(call: Call[OperatorPrincipal]) -> Response:
    """Delete a plan that no account has."""
    plan_id = parse_path_id(call.path["plan_id"])
    await call.plane.database.transact(partial(plans.delete, plan_id=plan_id))
    return Response(status_code=204)


async def set_limit(call: Call[OperatorPrincipal]) -> Response:
    """Set what every scope of a kind gets, and the most that it may set for itself.

    All accounts of the plan follow at once: what nobody has set becomes the default, what is above
    the bound is lowered to it.
    """
    plan_id = parse_path_id(call.path["plan_id"])

    async def effect(tx: WriteTx) -> Plan:
        await plans.get(tx, plan_id=plan_id)
        fields = check(PlanLimitFields, call.document)
        kind, resource = rules.parse_kind(fields.scope), rules.parse_resource(fields.resource)
        return await plans.set_limit(
            tx,
            plan_id=plan_id,
            kind=kind,
            resource=resource,
            window=rules.parse_window(fields.window, resource=resource),
            model=rules.clean_model(fields.model),
            default=amounts.read(fields.default_limit, resource=resource, param="default_limit"),
            most=amounts.read(fields.most_limit, resource=resource, param="most_limit"),
        )

    return reply(shape(await call.plane.database.transact(effect)))


async def remove_limit(call: Call[OperatorPrincipal]) -> Response:
    """Lift a limit of a plan, for all its accounts; what they have set themselves stays."""
    plan_id = parse_path_id(call.path["plan_id"])
    async with call.plane.database.read() as tx:
        await plans.get(tx, plan_id=plan_id)
    resource = rules.parse_resource(required(call.query, "resource"))
    remove = partial(
        plans.remove_limit,
        plan_id=plan_id,
        kind=rules.parse_kind(required(call.query, "scope")),
        resource=resource,
        window=rules.parse_window(required(call.query, "window"), resource=resource),
        model=rules.clean_model(call.query.find("model")),
    )
    await call.plane.database.transact(remove)
    return Response(status_code=204)


def shape(plan: Plan) -> PlanShape:
    """A plan as JSON has it."""
    return PlanShape(
        id=plan.row.id,
        name=plan.row.name,
        created_at=format_moment(plan.row.created_ms - plan.row.created_ms % 1000),
        limits=[_limit(line) for line in plan.limits],
    )


def _limit(line: PlanLimit) -> PlanLimitShape:
    return PlanLimitShape(
        scope=line.scope_kind,
        resource=line.resource,
        unit=UNITS[Resource(line.resource)],
        window=line.window,
        model=line.model or None,
        default_limit=amounts.write_any(line.default, resource=line.resource),
        most_limit=amounts.write_any(line.most, resource=line.resource),
    )
