"""A month's bill over HTTP.

Owns its shape, and how a month is named. Must not know which moments belong to it;
`service.billing` does.
"""

import re
from datetime import UTC, datetime
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.errors import Invalid
from bursar.core.money import format_usd
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, Usd, format_moment
from bursar.service.access import ProvisioningPrincipal
from bursar.service.billing import summaries
from bursar.service.billing.summaries import CURRENCY, BillingSummary

_MONTH: Final = re.compile(r"(20[0-9]{2}|19[7-9][0-9])-(0[1-9]|1[0-2])", re.ASCII)


class ProductShape(TypedDict):
    """What was used of one product, and what that cost in USD; `quantities` are sums by meter."""

    product: str
    cost: Usd
    events: int
    quantities: dict[str, int]


class BillShape(TypedDict):
    """A calendar month of an account, in its time zone; the days are both in it.

    `ends_at` is not in it any more. The invoice for it is due to be made on `next_invoice_on`.
    Costs are in `currency`, whatever invoices are made out in.
    """

    starts_at: Moment
    ends_at: Moment
    first_day: str
    last_day: str
    next_invoice_on: str
    time_zone: str
    plan_id: int
    plan_name: str
    currency: str
    invoice_currency: str
    total_cost: Usd
    products: list[ProductShape]


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """What your account used in a calendar month (`month=2026-11`; else the present one).

    By product, to the nano-USD: the total is what left the wallet for usage of that month.
    """
    plane = call.plane
    at_ms = _moment_in(call.query.find("month"), now_ms=plane.now_ms())
    await plane.database.catch_up()
    async with plane.database.read() as tx:
        found = await summaries.summarize_month(tx, account_id=call.caller.account_id, at_ms=at_ms)
    return reply(_shape(found))


def _moment_in(month: str | None, *, now_ms: int) -> int:
    """A moment that is in this month in every time zone: noon of its fifteenth day."""
    if month is None:
        return now_ms
    found = _MONTH.fullmatch(month)
    if found is None:
        raise Invalid("invalid_value", "A month looks like 2026-11.", param="month")
    noon = datetime(int(found[1]), int(found[2]), 15, 12, tzinfo=UTC)
    return int(noon.timestamp()) * 1000


def _shape(bill: BillingSummary) -> BillShape:
    return BillShape(
        starts_at=format_moment(bill.start_ms),
        ends_at=format_moment(bill.end_ms),
        first_day=bill.first_day.isoformat(),
        last_day=bill.last_day.isoformat(),
        next_invoice_on=bill.next_invoice_day.isoformat(),
        time_zone=bill.account.time_zone,
        plan_id=bill.plan.id,
        plan_name=bill.plan.name,
        currency=CURRENCY,
        invoice_currency=bill.account.currency,
        total_cost=format_usd(bill.total_nanos),
        products=[
            ProductShape(
                product=each.product,
                cost=format_usd(each.cost_nanos),
                events=each.events,
                quantities=dict(each.quantities),
            )
            for each in bill.products
        ],
    )
