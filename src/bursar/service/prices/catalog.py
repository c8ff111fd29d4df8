"""The price lists of model providers, as the package genai-prices knows them.

Owns what of its data can be trusted with money. The data has gaps: models without a price, prices
of zero, prices by the time of day, things sold that the price book has no meter for. Whatever would
make a call cheaper here than at the provider is left out with a reason. Must not know the book.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from bursar.core.errors import NotFound
from bursar.core.prices import InvalidPrice
from bursar.store import prices
from bursar.store.prices import NewPrice

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

# Its keys, and our meters.
_METERS: Final = {
    "input_mtok": "input_tokens",
    "cache_read_mtok": "cached_input_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "input_audio_mtok": "input_audio_tokens",
    "output_mtok": "output_tokens",
    "output_reasoning_mtok": "reasoning_tokens",
    "output_audio_mtok": "output_audio_tokens",
}
# Tokens that we cannot tell from others, and whose price they would get.
_LUMPED: Final = {
    "input_image_mtok": "input_mtok",
    "input_video_mtok": "input_mtok",
    "cache_audio_read_mtok": "cache_read_mtok",
    "cache_image_read_mtok": "cache_read_mtok",
    "output_image_mtok": "output_mtok",
    "output_video_mtok": "output_mtok",
    "output_citation_mtok": "output_mtok",
}
_REQUESTS: Final = "requests_kcount"
_NAME: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")


class _Unusable(Exception):
    """This model's price cannot be taken over; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a provider's list came to; see `Report`."""

    offers: list[NewPrice] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unpriced: Counter[str] = field(default_factory=Counter)


def providers() -> list[str]:
    """The names of the providers in the data."""
    return sorted(provider.id for provider in _providers())


def read(provider: str, *, patterns: Sequence[str], now_ms: int) -> Found:
    """Return the usable prices of a provider's models whose names match a pattern.

    Each model is offered under every exact name that the data gives it. A price that changes on
    a later day is offered once more, from that day on. Raises NotFound for an unknown provider.
    """
    chosen = next((each for each in _providers() if each.id == provider), None)
    if chosen is None:
        raise NotFound("unknown_provider", f"genai-prices knows no provider {provider}.")
    source = f"genai-prices {version('genai-prices')} {provider}"
    found = Found()
    for name, model in _names(chosen):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        try:
            offers = list(_offers(name, model, now_ms=now_ms, source=source))
        except (_Unusable, InvalidPrice) as error:
            found.skipped[name] = str(error).rstrip(".")
            continue
        found.offers.extend(offers)
        found.unpriced.update(_unpriced(model))
    return found


def _providers() -> "Sequence[Provider]":
    from genai_prices.data import providers as known

    return known


def _names(provider: "Provider") -> "Iterator[tuple[str, ModelInfo]]":
    from genai_prices.types import ClauseEquals, ClauseOr

    own = {model.id: model for model in provider.models}
    others: dict[str, ModelInfo] = {}
    for model in provider.models:
        clauses = model.match.or_ if isinstance(model.match, ClauseOr) else [model.match]
        for clause in clauses:
            if isinstance(clause, ClauseEquals):
                others.setdefault(clause.equals, model)
    for name, model in sorted({**others, **own}.items()):
        if _NAME.fullmatch(name):
            yield name, model


def _offers(name: str, model: "ModelInfo", *, now_ms: int, source: str) -> Iterator[NewPrice]:
    for effective_ms in (now_ms, *_later_ms(model, now_ms)):
        moment = datetime.fromtimestamp(effective_ms // 1000, UTC)
        price = model.get_prices(moment)
        base, tiers = _rates(price)
        requests = _flat(price, _REQUESTS)
        offer = NewPrice(
            model=name,
            product="",
            per_million=base,
            per_unit={"requests": requests / 1000} if requests else {},
            tiers=tiers,
            is_free=False,
            context_window=model.context_window or None,
            max_output_tokens=None,
            effective_ms=effective_ms,
            source=source,
        )
        prices.as_price(0, offer)
        yield offer


def _later_ms(model: "ModelInfo", now_ms: int) -> list[int]:
    """The moments after now at which the price changes; raises _Unusable where it does daily."""
    from genai_prices.types import StartDateConstraint

    moments = []
    for row in model.prices if isinstance(model.prices, list) else ():
        if row.constraint is None:
            continue
        if not isinstance(row.constraint, StartDateConstraint):
            raise _Unusable("its price depends on the time of day")
        midnight = datetime.combine(row.constraint.start_date, time(), tzinfo=UTC)
        moments.append(int(midnight.timestamp()) * 1000)
    return sorted(moment for moment in set(moments) if moment > now_ms)


def _rates(
    price: "ModelPrice",
) -> tuple[dict[str, Decimal], tuple[tuple[int, dict[str, Decimal]], ...]]:
    """The prices per million by meter, and what of them changes in each tier."""
    if not _flat(price, "input_mtok"):
        raise _Unusable("it has no price for input, or a price of zero")
    for key, parent in _LUMPED.items():
        if _most(price, key) > (_flat(price, parent) or _flat(price, "input_mtok")):
            raise _Unusable(f"it has a dearer price for {key.removesuffix('_mtok')} tokens")
    base = {meter: _flat(price, key) for key, meter in _METERS.items() if _flat(price, key)}
    starts = sorted({start for key in _METERS for start in _tiers(price, key)})
    tiers = []
    for start in starts:
        above = {
            meter: _at(price, key, start) for key, meter in _METERS.items() if _tiers(price, key)
        }
        if not all(above.values()):
            raise _Unusable("it has a price of zero for long prompts")
        tiers.append((start, above))
    return base, tuple(tiers)


def _flat(price: "ModelPrice", key: str) -> Decimal:
    """The price below all tiers; 0 where there is none."""
    value = vars(price).get(key)
    return Decimal(0) if value is None else getattr(value, "base", value)


def _tiers(price: "ModelPrice", key: str) -> dict[int, Decimal]:
    return {tier.start: tier.price for tier in getattr(vars(price).get(key), "tiers", ())}


def _at(price: "ModelPrice", key: str, start: int) -> Decimal:
    reached = [usd for above, usd in sorted(_tiers(price, key).items()) if above <= start]
    return reached[-1] if reached else _flat(price, key)


def _most(price: "ModelPrice", key: str) -> Decimal:
    return max(_flat(price, key), *_tiers(price, key).values(), Decimal(0))


def _unpriced(model: "ModelInfo") -> Iterator[str]:
    """What the provider sells with this model and the price book has no meter for."""
    listed = model.prices
    sold = [row.prices for row in listed] if isinstance(listed, list) else [listed]
    keys = {key for price in sold for key, usd in vars(price).items() if usd}
    known = {*_METERS, *_LUMPED, _REQUESTS}
    for key in sorted(keys - known):
        yield re.sub(r"_(mtok|kcount|hours|kpages|mchars)$", "", key)
    yield from sorted({key for row in model.price_variants or () for key in row.when})
