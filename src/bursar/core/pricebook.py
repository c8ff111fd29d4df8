"""The price book: which price was in force at which moment.

Owns the choice by exact name and moment. Must not know where prices are stored; a worker
builds a new book when prices change and a running request keeps the price it started with.
"""

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter

from bursar.core.prices import Price

_effective = attrgetter("effective_ms")


class PriceBook:
    """Prices by model (or by product, for rows without a model); immutable once built.

    Of two prices with the same moment the one with the higher id, the later row, counts.
    """

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self._models: dict[str, list[Price]] = {}
        self._products: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda row: (row.effective_ms, row.id)):
            if price.model:
                self._models.setdefault(price.model, []).append(price)
            else:
                self._products.setdefault(price.product, []).append(price)

    def find(self, model: str, at_ms: int) -> Price | None:
        """Return the price of this exact model name at that moment, None if it had none yet."""
        return _latest(self._models.get(model), at_ms)

    def find_product(self, product: str, *, at_ms: int) -> Price | None:
        """Return the price of a product that is not a model, None if it had none yet."""
        return _latest(self._products.get(product), at_ms)

    def list(self, at_ms: int) -> tuple[Price, ...]:
        """Return every price in force at that moment, by model and then by product name."""
        rows = (*sorted(self._models.items()), *sorted(self._products.items()))
        found = (_latest(history, at_ms) for _, history in rows)
        return tuple(price for price in found if price is not None)


def _latest(history: "list[Price] | None", at_ms: int) -> Price | None:
    if history is None:
        return None
    if history[-1].effective_ms <= at_ms:
        return history[-1]
    count = bisect_right(history, at_ms, key=_effective)
    return history[count - 1] if count else None
