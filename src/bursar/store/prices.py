"""Prices: every version that was ever in force, never edited.

Owns how a price is written down: decimal strings in USD, per million units and per unit, as JSON
objects by meter. Must not know where prices come from.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, and_, insert, or_, select

from bursar.core.prices import Price, Tier, rate_per_million, rate_per_unit
from bursar.store import counters
from bursar.store.database import ReadTx, WriteTx
from bursar.store.tables import prices


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price version to store; prices are plain decimals in USD by meter.

    `tiers` are (above so many input tokens, USD per million by meter), rising.
    """

    model: str
    product: str
    per_million: Mapping[str, Decimal]
    per_unit: Mapping[str, Decimal]
    tiers: Sequence[tuple[int, Mapping[str, Decimal]]]
    is_free: bool
    context_window: int | None
    max_output_tokens: int | None
    effective_ms: int
    source: str


async def insert_price(tx: WriteTx, *, price: NewPrice) -> Price:
    """Store a new version and return it as the price book sees it."""
    price_id = await counters.advance(tx, name="prices")
    tiers = [{"above_input_tokens": n, "per_million": _plain(p)} for n, p in price.tiers]
    await tx.execute(
        insert(prices).values(
            id=price_id,
            model=price.model,
            product=price.product,
            per_million=json.dumps(_plain(price.per_million), sort_keys=True),
            per_unit=json.dumps(_plain(price.per_unit), sort_keys=True),
            tiers=json.dumps(tiers, sort_keys=True),
            is_free=int(price.is_free),
            context_window=price.context_window,
            max_output_tokens=price.max_output_tokens,
            effective_ms=price.effective_ms,
            created_ms=tx.now_ms,
            source=price.source,
        )
    )
    return as_price(price_id, price)


async def list_all(tx: ReadTx, *, models: Collection[str] | None = None) -> list[Price]:
    """Every version (of these models alone), oldest first."""
    query = select(prices).order_by(prices.c.id)
    if models is not None:
        query = query.where(prices.c.model.in_(models))
    return _read(await tx.execute(query))


async def list_of(tx: ReadTx, *, models: Collection[str], products: Collection[str]) -> list[Price]:
    """Every version of these models, and of these products that are not models, oldest first."""
    is_product = and_(prices.c.model == "", prices.c.product.in_(products))
    query = select(prices).where(or_(prices.c.model.in_(models), is_product))
    return _read(await tx.execute(query.order_by(prices.c.id)))


def as_price(price_id: int, price: NewPrice) -> Price:
    """The version as the price book sees it; raises core.prices.InvalidPrice."""
    return Price(
        id=price_id,
        model=price.model,
        product=price.product,
        per_token={meter: rate_per_million(usd) for meter, usd in price.per_million.items()},
        per_unit={meter: rate_per_unit(usd) for meter, usd in price.per_unit.items()},
        context_window=price.context_window,
        max_output_tokens=price.max_output_tokens,
        effective_ms=price.effective_ms,
        source=price.source,
        is_free=price.is_free,
        tiers=tuple(
            Tier(above, {meter: rate_per_million(usd) for meter, usd in per_million.items()})
            for above, per_million in price.tiers
        ),
    )


def _read(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[Price]:
    found = []
    for row in rows:
        tiers = [
            (tier["above_input_tokens"], _decimals(tier["per_million"]))
            for tier in json.loads(row.tiers)
        ]
        stored = NewPrice(
            model=row.model,
            product=row.product,
            per_million=_decimals(json.loads(row.per_million)),
            per_unit=_decimals(json.loads(row.per_unit)),
            tiers=tiers,
            is_free=bool(row.is_free),
            context_window=row.context_window,
            max_output_tokens=row.max_output_tokens,
            effective_ms=row.effective_ms,
            source=row.source,
        )
        found.append(as_price(row.id, stored))
    return found


def _plain(decimals: Mapping[str, Decimal]) -> dict[str, str]:
    return {meter: format(usd, "f") for meter, usd in decimals.items()}


def _decimals(texts: Mapping[str, str]) -> dict[str, Decimal]:
    return {meter: Decimal(text) for meter, text in texts.items()}
