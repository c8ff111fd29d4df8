"""Use of an account from one day to another, both included, by its own calendar.

Owns which moments such a span has; without a day said it is the present month. Must not know how it
is shown, nor what is billed (that is `summaries`).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from bursar.core import windows
from bursar.core.errors import Invalid, InvariantViolated, NotFound
from bursar.core.windows import Window
from bursar.service.billing import summaries
from bursar.store.database import ReadTx
from bursar.store.metering.products import ProductUse
from bursar.store.tenants import accounts

# Every single event of the span is read.
_MOST_DAYS: Final = 366
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DaysUse:
    """What was used from `start_ms` up to but not including `end_ms`, by product."""

    start_ms: int
    end_ms: int
    products: tuple[ProductUse, ...]

    @property
    def events(self) -> int:
        """How many usage events there were."""
        return sum(each.events for each in self.products)

    @property
    def cost_nanos(self) -> int:
        """What they cost, in nano-USD."""
        return sum(each.cost_nanos for each in self.products)

    def quantity(self, meter: str) -> int:
        """How much was used of a meter, whatever the product."""
        return sum(each.quantities.get(meter, 0) for each in self.products)


async def sum_days(
    tx: ReadTx, *, account_id: int, first: date | None, last: date | None, now_ms: int
) -> DaysUse:
    """Return the account's use from the first day to the last, in its time zone.

    Without the first it is from the beginning of the last one's month, without the last up to the
    end of the present month. Raises NotFound, and Invalid (`invalid_range`) for a span that ends
    before it begins or has more than 366 days.
    """
    zone = await _find_zone(tx, account_id=account_id)
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    today = moment.astimezone(windows.find_zone(zone)).date()
    end = last or max(_end_of_month(today), first or today)
    start = first or end.replace(day=1)
    if end < start or (end - start).days >= _MOST_DAYS:
        message = f"A span has 1 to {_MOST_DAYS} days, and does not end before it begins."
        raise Invalid("invalid_range", message, param="end_date")
    start_ms = windows.day_start(start, zone=zone)
    end_ms = windows.day_start(end + _DAY, zone=zone)
    used = await summaries.sum_products(tx, account_id=account_id, from_ms=start_ms, to_ms=end_ms)
    return DaysUse(start_ms, end_ms, used)


async def find_month_end(tx: ReadTx, *, account_id: int, now_ms: int) -> int:
    """Return when the account's present calendar month ends, in ms; raises NotFound."""
    zone = await _find_zone(tx, account_id=account_id)
    month = windows.bounds(Window.MONTH, now_ms=now_ms, zone=zone)
    if month.end_ms is None:
        raise InvariantViolated("invariant_violated", "Months end.")
    return month.end_ms


async def _find_zone(tx: ReadTx, *, account_id: int) -> str:
    account = await accounts.find_account(tx, account_id=account_id)
    if account is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return account.time_zone


def _end_of_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1) - _DAY
