"""A month's bill is what the usage rows of that month say, to the nano."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from bursar.core.errors import Invalid, NotFound
from bursar.service import accounts, ledger
from bursar.service.accounts import AccountChange
from bursar.service.billing import summaries
from bursar.service.billing.summaries import BillingSummary
from bursar.store.database import Database
from bursar.store.metering.products import ProductUse
from tests.databases import Clock
from tests.installations import a_charge, use

pytestmark = pytest.mark.usefixtures("installation")
KATHMANDU = "Asia/Kathmandu"


def ms(*moment: int, zone: str = "UTC") -> int:
    place = UTC if zone == "UTC" else ZoneInfo(zone)
    return int(datetime(*moment, tzinfo=place).timestamp() * 1000)  # type: ignore[misc, arg-type]


async def bill(database: Database, at_ms: int, account_id: int = 1) -> BillingSummary:
    async with database.read() as tx:
        return await summaries.summarize_month(tx, account_id=account_id, at_ms=at_ms)


async def test_a_month_is_billed_by_product_to_the_nano(database: Database, clock: Clock) -> None:
    await use(
        database,
        a_charge("a", 101, at_ms=ms(2026, 11, 1), product="hippo", quantities='{"documents":3}'),
        a_charge("b", 1, at_ms=ms(2026, 11, 30, 23, 59), product="hippo"),
        a_charge("c", 7, at_ms=ms(2026, 11, 9), product="storage", quantities='{"bytes":1}'),
        a_charge("d", 50_000, at_ms=ms(2026, 10, 31, 23, 59), product="hippo"),
        a_charge("e", 90_000, at_ms=ms(2026, 12, 1), product="hippo"),
    )
    found = await bill(database, clock.now_ms)
    tokens = {"input_tokens": 10, "cached_input_tokens": 2, "output_tokens": 5}
    assert [(each.product, each.events, each.cost_nanos) for each in found.products] == [
        ("hippo", 2, 102),
        ("storage", 1, 7),
    ]
    assert found.products[1].quantities == {**tokens, "reasoning_tokens": 1, "bytes": 1}
    assert found.total_nanos == 109
    assert (found.cost_of("hippo"), found.cost_of("lexa")) == (102, 0)
    days = (found.first_day, found.last_day, found.next_invoice_day)
    assert days == (date(2026, 11, 1), date(2026, 11, 30), date(2026, 12, 1))
    assert (found.account.id, found.plan.name) == (1, "default")
    assert {type(each.cost_nanos) for each in found.products} == {int}


async def test_months_follow_the_calendar_of_the_account(database: Database) -> None:
    """Nepal's clocks are 5:45 ahead: no roll-up of full hours could tell its months apart."""
    begins = ms(2026, 11, 1, zone=KATHMANDU)
    await use(
        database,
        a_charge("before", 1, at_ms=begins - 1),
        a_charge("first", 10, at_ms=begins),
        a_charge("last", 100, at_ms=ms(2026, 12, 1, zone=KATHMANDU) - 1),
    )
    async with database.write() as tx:
        await accounts.update(tx, account_id=1, change=AccountChange(time_zone=KATHMANDU))
    november = await bill(database, begins)
    assert (november.total_nanos, november.start_ms) == (110, begins)
    assert november.next_invoice_day == date(2026, 12, 1)
    assert (await bill(database, begins - 1)).total_nanos == 1


async def test_bills_of_all_months_add_up_to_what_left_the_wallet(database: Database) -> None:
    charges = [
        a_charge(f"e{n}", n, at_ms=ms(2026, 1 + n % 12, 1 + n), product=f"p{n % 3}")
        for n in range(1, 28)
    ]
    await use(database, *charges)
    bills = [await bill(database, ms(2026, month, 15)) for month in range(1, 13)]
    async with database.read() as tx:
        wallet = await ledger.get_wallet(tx, account_id=1)
    assert sum(each.total_nanos for each in bills) == wallet.used == sum(range(1, 28))


async def test_sums_of_huge_quantities_are_exact(database: Database, clock: Clock) -> None:
    huge = f'{{"storage_bytes":{10**15 - 1},"documents":1}}'
    charges = [
        a_charge(f"e{n}", 0, at_ms=clock.now_ms, product="storage", quantities=huge)
        for n in range(9_300 // 100)
    ]
    await use(database, *charges)
    found = (await bill(database, clock.now_ms)).products[0]
    assert found.quantities["storage_bytes"] == 93 * (10**15 - 1)
    assert found.quantities["documents"] == 93


async def test_nothing_of_another_account_is_billed(database: Database, clock: Clock) -> None:
    await use(database, a_charge("a", 5, at_ms=clock.now_ms))
    async with database.write() as tx:
        other = await accounts.create(
            tx, name="Other", time_zone="UTC", credit_nanos=0, actor="test"
        )
    empty = await bill(database, clock.now_ms, other.row.id)
    assert (empty.total_nanos, empty.products) == (0, ())
    with pytest.raises(NotFound):
        await bill(database, clock.now_ms, 999)


async def test_any_span_can_be_summed_but_one_that_ends_before_it_begins(
    database: Database, clock: Clock
) -> None:
    now = clock.now_ms
    bare = {"input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0}
    await use(database, *(a_charge(f"e{n}", 10**n, at_ms=now + n, **bare) for n in range(3)))
    async with database.read() as tx:
        found = await summaries.sum_products(tx, account_id=1, from_ms=now + 1, to_ms=now + 2)
        assert found == (ProductUse("gateway", 1, 10, {}),)
        with pytest.raises(Invalid) as refusal:
            await summaries.sum_products(tx, account_id=1, from_ms=2, to_ms=1)
    assert refusal.value.code == "invalid_range"
