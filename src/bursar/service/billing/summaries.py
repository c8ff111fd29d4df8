"""Billing summaries: what an account used in a calendar month, by product, and when it is billed.

Owns which moments belong to a month: those of the account's own calendar. Costs are what was
charged, so their sum is what left the wallet for usage of that month, to the nano-USD. Must not
know how a bill is shown.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from bursar.core import windows
from bursar.core.errors import Invalid, InvariantViolated, NotFound
from bursar.core.windows import Window
from bursar.store.database import ReadTx
from bursar.store.limits import plans
from bursar.store.limits.plans import PlanRow
from bursar.store.metering import products
from bursar.store.metering.products import ProductUse
from bursar.store.tenants import accounts
from bursar.store.tenants.accounts import AccountRow

# What every price and amount is in, whatever somebody's invoices are made out in.
CURRENCY: Final = "USD"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BillingSummary:
    """One calendar month of an account, in its time zone; amounts are nano-USD.

    It is from `start_ms` up to but not including `end_ms`, and from `first_day` to `last_day` with
    both; its invoice is due to be made on `next_invoice_day`. `products` are in order of names.
    """

    account: AccountRow
    plan: PlanRow
    start_ms: int
    end_ms: int
    first_day: date
    last_day: date
    next_invoice_day: date
    total_nanos: int
    products: tuple[ProductUse, ...]

    def cost_of(self, product: str) -> int:
        """What this product cost, in nano-USD; 0 for one that was not used."""
        return sum(each.cost_nanos for each in self.products if each.product == product)


async def summarize_month(tx: ReadTx, *, account_id: int, at_ms: int) -> BillingSummary:
    """Return the account's bill for the calendar month that `at_ms` is in; raises NotFound."""
    account = await accounts.find_account(tx, account_id=account_id)
    if account is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    plan = await plans.find_plan(tx, plan_id=account.plan_id)
    month = windows.bounds(Window.MONTH, now_ms=at_ms, zone=account.time_zone)
    if plan is None or month.end_ms is None:
        raise InvariantViolated("invariant_violated", "Every account has a plan, and months end.")
    used = await products.sum_products(
        tx, account_id=account_id, from_ms=month.start_ms, to_ms=month.end_ms
    )
    next_day = _day(month.end_ms, account.time_zone)
    return BillingSummary(
        account=account,
        plan=plan,
        start_ms=month.start_ms,
        end_ms=month.end_ms,
        first_day=_day(month.start_ms, account.time_zone),
        last_day=next_day - timedelta(days=1),
        next_invoice_day=next_day,
        total_nanos=sum(each.cost_nanos for each in used),
        products=tuple(used),
    )


async def sum_products(
    tx: ReadTx, *, account_id: int, from_ms: int, to_ms: int
) -> tuple[ProductUse, ...]:
    """Return what the account used from one moment up to the other, by product name.

    Raises Invalid (`invalid_range`) for a span that ends before it begins.
    """
    if from_ms > to_ms:
        raise Invalid("invalid_range", "The span must not end before it begins.", param="from")
    found = await products.sum_products(tx, account_id=account_id, from_ms=from_ms, to_ms=to_ms)
    return tuple(found)


def _day(at_ms: int, zone: str) -> date:
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    return moment.astimezone(windows.find_zone(zone)).date()
