"""Prices of meters, and reports of what they count, for tests.

Owns no expectation: what must be true is the test's.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from bursar.service import verify
from bursar.service.metering import events
from bursar.service.metering.events import Receipt
from bursar.service.metering.fields import NewEvent
from bursar.store import changes, prices
from bursar.store.database import Database
from bursar.store.prices import NewPrice

# What one costs, in nano-USD.
DOCUMENT, QUESTION, BYTE = 10_000_000, 2_500_001, 3


def usd(nanos: int) -> Decimal:
    """An amount of nano-USD as a price list has it."""
    return Decimal(nanos).scaleb(-9)


async def price(
    database: Database,
    *,
    product: str = "",
    model: str = "",
    per_unit: Mapping[str, int],
    effective_ms: int = 0,
    per_million: Mapping[str, Decimal] | None = None,
) -> None:
    """Put a price into the price book, nano-USD for each unit."""
    new = NewPrice(
        model=model,
        product=product,
        per_million=per_million or {},
        per_unit={meter: usd(nanos) for meter, nanos in per_unit.items()},
        tiers=(),
        is_free=False,
        context_window=None,
        max_output_tokens=None,
        effective_ms=effective_ms,
        source="test",
    )
    async with database.write() as tx:
        await prices.insert_price(tx, price=new)
        tx.announce(changes.PRICES, account_id=0)


async def price_all(database: Database) -> None:
    """Prices of two products and their meters, in force since ever."""
    await price(database, product="hippo", per_unit={"documents": DOCUMENT, "questions": QUESTION})
    await price(database, product="storage", per_unit={"storage_bytes": BYTE})


def documents(event_id: str, count: int = 1, **fields: object) -> NewEvent:
    """So many documents were read by hippo."""
    given: dict[str, object] = {"product": "hippo", **fields}
    return NewEvent(event_id, {"documents": count}, **given)  # type: ignore[arg-type]


def stored(event_id: str, count: int, **fields: object) -> NewEvent:
    """So many bytes were stored."""
    given: dict[str, object] = {"product": "storage", **fields}
    return NewEvent(event_id, {"storage_bytes": count}, **given)  # type: ignore[arg-type]


async def report(database: Database, *reports: NewEvent, account_id: int = 1) -> Receipt:
    """Report these, in this order."""
    return await events.record(database, account_id=account_id, events=dict(enumerate(reports)))


def codes(receipt: Receipt) -> dict[int, str]:
    """Why which places were refused."""
    return {place: each.code for place, each in sorted(receipt.rejected.items())}


async def differences(database: Database) -> list[str]:
    """What the proof of the books finds."""
    async with database.read() as tx:
        found = await verify.verify(tx, now_ms=database.clock_ms())
    return [str(each) for each in found.differences]
