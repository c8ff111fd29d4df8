"""The account as Cerevox shows it: what it is, its plan, its use and its bill.

Owns their shapes: beside what the client reads, what its documentation has. Must not know how usage
is summed, nor what a plan means.
"""

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from bursar.core.allowances import Resource
from bursar.core.errors import NotFound
from bursar.core.people.roles import Role
from bursar.core.windows import Window
from bursar.dialects.cerevox import fields
from bursar.edge.calls import Call, reply
from bursar.edge.fields import find_id, format_moment, usd_number
from bursar.service import accounts
from bursar.service.access import ProvisioningPrincipal
from bursar.service.billing import days, summaries
from bursar.service.billing.days import DaysUse
from bursar.service.billing.summaries import BillingSummary
from bursar.service.limits import allowances, plans
from bursar.service.limits.allowances import Filter, Limit
from bursar.service.limits.rules import ACCOUNT, Scope
from bursar.service.people import members
from bursar.store.database import ReadTx
from bursar.store.people.members import MemberRow

# What says "no limit": the largest whole number that every JSON reader takes exactly.
UNLIMITED: Final = 2**53 - 1
OWN: Final = "my"
# What the documentation's features and storage are if the account's own do not say.
_FEATURES: Final[Mapping[str, object]] = {
    "hippo_enabled": True,
    "lexa_enabled": True,
    "max_users": members.MOST,
}
_STORAGE: Final = "storage_bytes"
_SHORT: Final = ((Window.MINUTE, 60), (Window.HOUR, 3_600), (Window.DAY, 86_400))
_PRODUCTS: Final = ("hippo", "lexa", "storage")
_OTHER: Final = "other"


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """The account, and who asks."""
    account_id = _find_own(call)
    async with call.plane.database.read() as tx:
        row = (await accounts.get(tx, account_id=account_id)).row
        plan = await plans.get(tx, plan_id=row.plan_id)
        person = await _find_person(tx, call.caller)
    return reply(
        {
            "account_id": str(row.id),
            "account_name": row.name,
            "email": None if person is None else person.email,
            "name": row.name if person is None else person.name,
            "plan": plan.row.name,
            "status": row.status,
            "created_at": format_moment(row.created_ms - row.created_ms % 1_000),
            "features": {**_FEATURES, **row.features},
        }
    )


async def show_plan(call: Call[ProvisioningPrincipal]) -> Response:
    """The account's plan, and what it and the account's own limits allow."""
    account_id, now_ms = _find_own(call), call.plane.now_ms()
    async with call.plane.database.read() as tx:
        row = (await accounts.get(tx, account_id=account_id)).row
        plan = await plans.get(tx, plan_id=row.plan_id)
        limits = await _list_limits(tx, account_id=account_id, now_ms=now_ms)
    monthly = _find_limit(limits, Window.MONTH)
    rate, interval = _find_rate(limits)
    shown = {
        "plan": plan.row.name,
        "status": row.status,
        "base": UNLIMITED if monthly is None else monthly,
        "bytes": _find_storage(row.features) or UNLIMITED,
        "messages": monthly,
        "message_rate": rate,
        "message_interval": interval,
        "bytes_overage": None,
    }
    return reply({"plan": shown})


async def show_usage(call: Call[ProvisioningPrincipal]) -> Response:
    """What was used from one day to another, both included, or in the present month."""
    account_id, plane = _find_own(call), call.plane
    first = fields.find_day(call.query, "start_date")
    last = fields.find_day(call.query, "end_date")
    now_ms = plane.now_ms()
    await plane.database.catch_up()
    async with plane.database.read() as tx:
        row = (await accounts.get(tx, account_id=account_id)).row
        used = await days.sum_days(tx, account_id=account_id, first=first, last=last, now_ms=now_ms)
        resets_ms = await days.find_month_end(tx, account_id=account_id, now_ms=now_ms)
        limits = await _list_limits(tx, account_id=account_id, now_ms=now_ms)
    monthly = _find_limit(limits, Window.MONTH)
    totals = {
        "total_requests": used.events,
        "documents_processed": used.quantity("documents"),
        "questions_asked": used.quantity("questions"),
        "storage_bytes": used.quantity(_STORAGE),
        "rate_limit": UNLIMITED if monthly is None else monthly,
        "rate_limit_reset": format_moment(resets_ms),
        "estimated_cost": usd_number(used.cost_nanos),
    }
    return reply({**_meters(used, _find_storage(row.features)), **totals})


async def show_billing(call: Call[ProvisioningPrincipal]) -> Response:
    """What the present calendar month has come to, by product."""
    account_id, plane = _find_own(call), call.plane
    await plane.database.catch_up()
    async with plane.database.read() as tx:
        bill = await summaries.summarize_month(tx, account_id=account_id, at_ms=plane.now_ms())
    return reply(
        {
            "period_start": bill.first_day.isoformat(),
            "period_end": bill.last_day.isoformat(),
            "total_cost": usd_number(bill.total_nanos),
            "currency": summaries.CURRENCY,
            "breakdown": _breakdown(bill),
            "next_invoice_date": bill.next_invoice_day.isoformat(),
            "plan": bill.plan.name,
        }
    )


def _find_own(call: Call[ProvisioningPrincipal]) -> int:
    """The caller's own account; another's is answered as one that is not there."""
    asked = call.path.get("account_id", OWN)
    if asked != OWN and find_id(asked) != call.caller.account_id:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return call.caller.account_id


async def _find_person(tx: ReadTx, caller: ProvisioningPrincipal) -> MemberRow | None:
    """Whom the caller acts for, or the account's first owner."""
    account_id = caller.account_id
    if caller.user_id is not None:
        return await members.get(tx, account_id=account_id, user_id=caller.user_id)
    everybody = await members.list_members(
        tx, account_id=account_id, after_id=0, limit=members.MOST
    )
    return next((each for each in everybody if each.role == Role.OWNER), None)


async def _list_limits(tx: ReadTx, *, account_id: int, now_ms: int) -> list[Limit]:
    where = Filter(scope=Scope(ACCOUNT, 0), resource=Resource.REQUESTS)
    return await allowances.list_limits(tx, account_id=account_id, now_ms=now_ms, where=where)


def _find_limit(limits: list[Limit], window: Window) -> int | None:
    """The account's limit of requests in this window, whatever the model."""
    for each in limits:
        ref = each.allowance.ref
        if ref.window == window and not ref.model and each.allowance.limit is not None:
            return each.allowance.limit
    return None


def _find_rate(limits: list[Limit]) -> tuple[int | None, int | None]:
    """The limit of requests in the shortest window that has one, and its seconds."""
    for window, length_s in _SHORT:
        limit = _find_limit(limits, window)
        if limit is not None:
            return limit, length_s
    return None, None


def _find_storage(features: Mapping[str, object]) -> int | None:
    """How much may be stored, if the account's features say so."""
    found = features.get(_STORAGE)
    return found if type(found) is int else None


def _meters(used: DaysUse, storage: int | None) -> dict[str, Any]:
    return {
        "files": {"processed": used.quantity("documents"), "total": None},
        "pages": {"processed": used.quantity("pages"), "total": None},
        "advanced_pages": {"processed": used.quantity("advanced_pages"), "total": None},
        "storage": {"used": used.quantity(_STORAGE), "total": storage},
    }


def _breakdown(bill: BillingSummary) -> dict[str, Any]:
    """What each product cost, those of the documentation always; model calls are `gateway_cost`."""
    nanos = dict.fromkeys(_PRODUCTS, 0)
    for each in bill.products:
        name = each.product or _OTHER
        nanos[name] = nanos.get(name, 0) + each.cost_nanos
    return {f"{name}_cost": usd_number(cost) for name, cost in nanos.items()}
