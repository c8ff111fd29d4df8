"""Sums of usage by product: events, cost, and how much of each meter.

Owns reading usage rows into these sums; roll-ups know neither products nor every meter. Must not
know whose bill they are for. One account's span is one walk along the index of its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Select, Text, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB

from bursar.store.database import POSTGRESQL, ReadTx
from bursar.store.tables import usage_events

_TOKENS: Final = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
# Each half of a sum fits in 64 bits however large the quantities are.
_HALF: Final = 10**9


@dataclass(frozen=True, slots=True)
class ProductUse:
    """What was used of one product; `quantities` are sums by meter, of those that were used."""

    product: str
    events: int
    cost_nanos: int
    quantities: Mapping[str, int]


async def sum_products(
    tx: ReadTx, *, account_id: int, from_ms: int, to_ms: int
) -> list[ProductUse]:
    """Sum the account's usage from `from_ms` up to but not including `to_ms`, by product name."""
    c = usage_events.c
    where = (c.account_id == account_id, c.at_ms >= from_ms, c.at_ms < to_ms)
    query = (
        select(
            c.product,
            func.count(),
            func.sum(c.cost_nanos),
            *(func.sum(c[name]) for name in _TOKENS),
        )
        .where(*where)
        .group_by(c.product)
    )
    rows: list[list[Any]] = [list(row) for row in await tx.execute(query)]
    others = await _sum_quantities(tx, where)
    return [
        ProductUse(product, int(events), int(cost), {**_tokens(tokens), **others.get(product, {})})
        for product, events, cost, *tokens in sorted(rows)
    ]


def _tokens(sums: Sequence[Any]) -> dict[str, int]:
    return {name: int(total) for name, total in zip(_TOKENS, sums, strict=True) if total}


async def _sum_quantities(tx: ReadTx, where: Sequence[Any]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    rows: list[list[Any]] = [list(row) for row in await tx.execute(_quantities(tx).where(*where))]
    for product, meter, high, low in rows:
        found.setdefault(product, {})[meter] = int(high) * _HALF + int(low)
    return found


def _quantities(tx: ReadTx) -> Select[*tuple[Any, ...]]:
    column = usage_events.c.quantities
    if tx.dialect == POSTGRESQL:
        parts: Any = func.jsonb_each_text(cast(column, JSONB))
    else:
        parts = func.json_each(column)
    each = parts.table_valued("key", "value", joins_implicitly=True)
    amount = cast(cast(each.c.value, Text), BigInteger)
    return (
        select(
            usage_events.c.product,
            each.c.key,
            func.sum(amount // _HALF),
            func.sum(amount % _HALF),
        )
        .where(column.is_not(None))
        .group_by(usage_events.c.product, each.c.key)
    )
