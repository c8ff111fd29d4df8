"""Prices and the cost of what was used.

Owns the exact scale of rates, how reported token counts split into separately priced parts,
and the one rounding of a cost. Must not know where prices are kept or who pays.

Reported quantities are totals, as OpenAI reports them: `input_tokens` includes cached,
cache-written and audio tokens, `output_tokens` includes reasoning and audio tokens. A part
without a rate of its own costs what its total costs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from bursar.core import money

# A rate is nano-USD per unit times this: a price per million with 12 decimals is exact.
RATE_SCALE = 10**9
MAX_QUANTITY = 10**15

INPUT = "input_tokens"
OUTPUT = "output_tokens"
REQUESTS = "requests"
INPUT_PARTS = ("cached_input_tokens", "cache_write_tokens", "input_audio_tokens")
OUTPUT_PARTS = ("reasoning_tokens", "output_audio_tokens")
TOKEN_METERS = frozenset((INPUT, OUTPUT, *INPUT_PARTS, *OUTPUT_PARTS))

_MILLION = 10**6
_PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?")
_MAX_LENGTH = 64
_MAX_USD_PER_UNIT = 10**6
_MAX_RATE = _MAX_USD_PER_UNIT * money.NANOS_PER_USD * RATE_SCALE
_PARTS = frozenset((*INPUT_PARTS, *OUTPUT_PARTS))
_FAMILIES = ((INPUT, INPUT_PARTS), (OUTPUT, OUTPUT_PARTS))


class InvalidPrice(ValueError):
    """A price that cannot be used: negative, absurdly high, inexact, or zero by accident."""

    code = "invalid_price"


class InvalidQuantity(ValueError):
    """Usage that makes no sense: not a count, parts above their total, or beyond all money."""

    code = "invalid_quantity"


class Unpriced(InvalidQuantity):
    """Something was used that this price has no rate for: unpriced is not free."""

    code = "unpriced_meter"


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates for the whole request when its prompt has more tokens than `above_input_tokens`.

    A meter that the tier does not name keeps its rate from below.
    """

    above_input_tokens: int
    per_token: Mapping[str, int] = field(hash=False)


@dataclass(frozen=True, slots=True)
class RateTable:
    """What is worked out once from the rates of a price, or of one of its tiers.

    In `charges` a part has its rate less its total's rate, so that totals need no splitting.
    `most_input` and `most_output` are the dearest rates of each direction, None without any.
    """

    above_input_tokens: int
    rates: Mapping[str, int] = field(hash=False)
    charges: Mapping[str, int] = field(hash=False)
    most_input: int | None
    most_output: int | None
    per_request: int


@dataclass(frozen=True, slots=True)
class Price:
    """The rates of one model (or product) from `effective_ms` on; never edited.

    `per_token` and `per_unit` map meters to rates (see RATE_SCALE). A rate of zero needs
    `is_free`. Raises InvalidPrice when a rate is out of range or a meter has two rates.
    `is_chat_priced`: both directions of a conversation have a rate; `is_embedding_priced`: input
    has one.
    """

    id: int
    model: str
    product: str
    per_token: Mapping[str, int] = field(hash=False)
    per_unit: Mapping[str, int] = field(hash=False)
    context_window: int | None
    max_output_tokens: int | None
    effective_ms: int
    source: str
    is_free: bool = False
    tiers: tuple[Tier, ...] = ()
    tables: tuple[RateTable, ...] = field(init=False, repr=False, compare=False)
    is_chat_priced: bool = field(init=False, repr=False, compare=False)
    is_embedding_priced: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.per_token and not self.per_unit:
            raise InvalidPrice("A price needs at least one rate.")
        if self.per_token.keys() & self.per_unit.keys():
            raise InvalidPrice("A meter is priced either per token or per unit.")
        for tokens in (self.context_window, self.max_output_tokens):
            if tokens is not None and not 0 < tokens <= MAX_QUANTITY:
                raise InvalidPrice("A window or an output limit must be a count of tokens.")
        object.__setattr__(self, "tables", _compile(self))
        object.__setattr__(self, "is_chat_priced", self.has_rates(INPUT, OUTPUT))
        object.__setattr__(self, "is_embedding_priced", self.has_rates(INPUT))

    def has_rates(self, *meters: str) -> bool:
        """Return whether each of these meters has a rate of its own."""
        return all(meter in self.tables[0].rates for meter in meters)


def rate_per_million(text: Decimal | str) -> int:
    """Return the rate of a price in USD per million units, at most 12 decimals.

    Raises InvalidPrice for a negative, inexact or non-decimal price, or one above
    1 000 000 USD per unit.
    """
    return _rate(text, per=_MILLION)


def rate_per_unit(text: Decimal | str) -> int:
    """Return the rate of a price in USD per unit, at most 18 decimals; else InvalidPrice."""
    return _rate(text, per=1)


def format_rate(rate: int, *, per: int = 1) -> str:
    """Return a rate as USD per `per` units, a plain decimal with at least two decimals."""
    scale = money.NANOS_PER_USD * RATE_SCALE
    dollars, rest = divmod(rate * per, scale)
    return f"{dollars}." + f"{rest:018d}".rstrip("0").ljust(2, "0")


def cost_nanos(price: Price, quantities: Mapping[str, int]) -> int:
    """Return what these reported quantities cost, in nano-USD.

    Exact, rounded once half up, and at least 1 when anything with a rate was used.
    Raises InvalidQuantity for nonsensical usage (the caller decides what then happens) and
    its subclass Unpriced for a use that has no rate; `requests` without a rate is only a count.
    """
    tables = price.tables
    table = tables[0] if len(tables) == 1 else _table_for(tables, quantities.get(INPUT, 0))
    charges = table.charges
    total = 0
    parts = False
    for meter, quantity in quantities.items():
        if type(quantity) is not int or not 0 <= quantity <= MAX_QUANTITY:
            raise InvalidQuantity(f"{meter} must be a whole number from 0 to {MAX_QUANTITY}.")
        charge = charges.get(meter)
        if charge is None:
            if quantity and meter != REQUESTS:
                _require_rate(table, meter, quantities)
        elif quantity:
            total += charge * quantity
        if meter in _PARTS:
            parts = True
    if parts:
        _require_parts_within_totals(quantities)
    if total == 0:
        return 0
    nanos = (2 * total + RATE_SCALE) // (2 * RATE_SCALE)
    if nanos > money.MAX_NANOS:
        raise InvalidQuantity("The use costs more than any amount of money that can be kept.")
    return nanos or 1


def _table_for(tables: tuple[RateTable, ...], input_tokens: int) -> RateTable:
    if type(input_tokens) is not int:
        raise InvalidQuantity(f"{INPUT} must be a whole number.")
    found = tables[0]
    for table in tables[1:]:
        if input_tokens > table.above_input_tokens:
            found = table
    return found


def _require_parts_within_totals(quantities: Mapping[str, int]) -> None:
    for total, parts in _FAMILIES:
        if sum(quantities.get(part, 0) for part in parts) > quantities.get(total, 0):
            raise InvalidQuantity(f"The parts of {total} exceed it.")


def _require_rate(table: RateTable, meter: str, quantities: Mapping[str, int]) -> None:
    """Allow a total without a rate when parts with rates make it up entirely."""
    for total, parts in _FAMILIES:
        if meter == total:
            priced = sum(quantities.get(part, 0) for part in parts if part in table.rates)
            if priced >= quantities[total]:
                return
    raise Unpriced(f"There is no rate for {meter}.")


def _rate(text: Decimal | str, *, per: int) -> int:
    if isinstance(text, str):
        if len(text) > _MAX_LENGTH or _PLAIN.fullmatch(text) is None:
            raise InvalidPrice("A price must be a plain decimal number that is not negative.")
        price = Decimal(text)
    elif isinstance(text, Decimal):
        price = text
    else:
        raise InvalidPrice("A price must be a decimal number, never a float.")
    if not price.is_finite() or price < 0 or price > _MAX_USD_PER_UNIT * per:
        raise InvalidPrice("A price must be from 0 to 1 000 000 USD per unit.")
    exponent = price.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= -_MAX_LENGTH:
        numerator, denominator = price.as_integer_ratio()
        rate, rest = divmod(numerator * money.NANOS_PER_USD * RATE_SCALE, denominator * per)
        if rest == 0:
            return rate
    raise InvalidPrice("A price has too many decimals: 12 per million units, 18 per unit.")


def _compile(price: Price) -> tuple[RateTable, ...]:
    _require_valid(price, price.per_token)
    _require_valid(price, price.per_unit)
    rates = {**price.per_token, **price.per_unit}
    tables = [_table(0, rates)]
    for tier in price.tiers:
        above = tier.above_input_tokens
        if not tables[-1].above_input_tokens < above <= MAX_QUANTITY:
            raise InvalidPrice("Tiers must rise, each above the one before it.")
        if tier.per_token.keys() & price.per_unit.keys():
            raise InvalidPrice("A meter is priced either per token or per unit.")
        _require_valid(price, tier.per_token)
        tables.append(_table(above, {**rates, **tier.per_token}))
    return tuple(tables)


def _require_valid(price: Price, rates: Mapping[str, int]) -> None:
    for meter, rate in rates.items():
        if type(rate) is not int or not 0 <= rate <= _MAX_RATE:
            raise InvalidPrice(f"The rate of {meter} must be from 0 to 1 000 000 USD per unit.")
        if rate == 0 and not price.is_free:
            raise InvalidPrice(f"The rate of {meter} is zero; only a free price may say so.")


def _table(above: int, rates: dict[str, int]) -> RateTable:
    charges = dict(rates)
    dearest: list[int | None] = []
    for total, parts in _FAMILIES:
        base = rates.get(total)
        if base is not None:
            charges.update((part, rates.get(part, base) - base) for part in parts)
        family = [rates[meter] for meter in (total, *parts) if meter in rates]
        dearest.append(max(family, default=None))
    most_input, most_output = dearest
    return RateTable(above, rates, charges, most_input, most_output, rates.get(REQUESTS, 0))
