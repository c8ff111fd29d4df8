"""A cost is exact, rounded once, never zero by accident, and refused when it makes no sense."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core import money, prices
from bursar.core.prices import Price, Tier
from tests.core.pricing import MINI, chat_prices, per_million, per_unit, priced, usages

PARENTS = {
    **dict.fromkeys(prices.INPUT_PARTS, prices.INPUT),
    **dict.fromkeys(prices.OUTPUT_PARTS, prices.OUTPUT),
}


def cost_by_splitting(price: Price, usage: Mapping[str, int]) -> int:
    """The same rule written the slow way: split the totals, then price each piece."""
    rates = {**price.per_token, **price.per_unit}
    for tier in price.tiers:
        if usage[prices.INPUT] > tier.above_input_tokens:
            rates = {**price.per_token, **price.per_unit, **tier.per_token}
    pieces = dict(usage)
    for part, parent in PARENTS.items():
        pieces[parent] -= usage[part]
    total = Fraction(0)
    for meter, quantity in pieces.items():
        rate = rates.get(meter, rates.get(PARENTS.get(meter, ""), 0))
        total += Fraction(rate * quantity, prices.RATE_SCALE)
    if total == 0:
        return 0
    return max(1, int(total + Fraction(1, 2)))


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        ({}, 0),
        ({"input_tokens": 0, "output_tokens": 0}, 0),
        ({"input_tokens": 1_000_000}, 150_000_000),
        ({"output_tokens": 1_000_000}, 600_000_000),
        ({"input_tokens": 1, "output_tokens": 1}, 750),
        ({"input_tokens": 1000, "cached_input_tokens": 1000}, 75_000),
        ({"input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 10}, 126_000),
        ({"output_tokens": 1000, "reasoning_tokens": 900}, 600_000),
        ({"input_tokens": 10, "input_audio_tokens": 10, "requests": 1}, 1_500),
        ({"input_tokens": 10, "cache_write_tokens": 5, "documents": 0}, 1_500),
    ],
)
def test_a_chat_is_priced_by_its_parts(usage: dict[str, int], nanos: int) -> None:
    assert prices.cost_nanos(MINI, usage) == nanos


def test_every_part_has_its_own_rate_where_there_is_one() -> None:
    price = priced(
        per_million(
            input_tokens="1",
            cached_input_tokens="0.1",
            cache_write_tokens="1.25",
            input_audio_tokens="10",
            output_tokens="4",
            reasoning_tokens="3",
            output_audio_tokens="20",
        )
    )
    usage = {
        "input_tokens": 1000,
        "cached_input_tokens": 100,
        "cache_write_tokens": 200,
        "input_audio_tokens": 300,
        "output_tokens": 500,
        "reasoning_tokens": 100,
        "output_audio_tokens": 200,
    }
    cost = 400 * 1000 + 100 * 100 + 200 * 1250 + 300 * 10_000
    cost += 200 * 4000 + 100 * 3000 + 200 * 20_000
    assert prices.cost_nanos(price, usage) == cost


@given(st.data())
def test_the_cost_is_the_exact_sum_of_the_pieces_rounded_once(data: st.DataObject) -> None:
    price = data.draw(chat_prices())
    usage = data.draw(usages(data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 10**6))))
    assert prices.cost_nanos(price, usage) == cost_by_splitting(price, usage)


@pytest.mark.parametrize(
    ("tokens", "nanos"),
    [(1, 1), (4, 1), (5, 1), (14, 1), (15, 2), (24, 2), (25, 3)],
)
def test_a_cost_is_rounded_half_up_and_never_to_nothing(tokens: int, nanos: int) -> None:
    price = priced(per_million(input_tokens="0.0001"))  # a tenth of a nano-USD per token
    assert prices.cost_nanos(price, {"input_tokens": tokens}) == nanos


@pytest.mark.parametrize(
    ("tokens", "nanos"), [(200_000, 200_000_000), (200_001, 400_002_000), (500_000, 1_500_000_000)]
)
def test_a_long_prompt_is_priced_wholly_by_its_tier(tokens: int, nanos: int) -> None:
    tiers = (
        Tier(200_000, per_million(input_tokens="2")),
        Tier(400_000, per_million(input_tokens="3")),
    )
    price = priced(per_million(input_tokens="1", output_tokens="5"), tiers=tiers)
    assert prices.cost_nanos(price, {"input_tokens": tokens}) == nanos
    with_output = prices.cost_nanos(price, {"input_tokens": tokens, "output_tokens": 10})
    assert with_output == nanos + 50_000


def test_other_meters_are_priced_per_unit() -> None:
    price = priced({}, units=per_unit(documents="0.01", requests="0.002"))
    assert prices.cost_nanos(price, {"documents": 3, "requests": 1}) == 32_000_000


def test_a_total_without_a_rate_is_priced_when_its_parts_make_it_up() -> None:
    price = priced(per_million(input_audio_tokens="10"))
    usage = {"input_tokens": 100, "input_audio_tokens": 100}
    assert prices.cost_nanos(price, usage) == 1_000_000
    for unpriced in (usage | {"input_tokens": 101}, {"input_tokens": 1}):
        with pytest.raises(prices.Unpriced):
            prices.cost_nanos(price, unpriced)


@pytest.mark.parametrize(
    "usage",
    [
        {"documents": 1},
        {"images": 2, "input_tokens": 5},
        {"output_audio_tokens": 1, "output_tokens": 1},
        {"output_tokens": 1},
    ],
)
def test_what_has_no_rate_is_not_free(usage: dict[str, int]) -> None:
    price = priced(per_million(input_tokens="1"))
    with pytest.raises(prices.Unpriced) as refusal:
        prices.cost_nanos(price, usage)
    assert refusal.value.code == "unpriced_meter"


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1},
        {"input_tokens": 10**15 + 1},
        {"input_tokens": True},
        {"input_tokens": 1.0},
        {"input_tokens": "5"},
        {"input_tokens": None},
        {"unknown": -1},
        {"cached_input_tokens": 1},
        {"input_tokens": 5, "cached_input_tokens": 6},
        {"input_tokens": 5, "cached_input_tokens": 3, "input_audio_tokens": 3},
        {"input_tokens": 5, "output_tokens": 4, "reasoning_tokens": 5},
    ],
)
@pytest.mark.parametrize("tiers", [(), (Tier(100, per_million(input_tokens="2")),)])
def test_nonsensical_usage_is_reported(usage: dict[str, int], tiers: tuple[Tier, ...]) -> None:
    price = priced(MINI.per_token, tiers=tiers)
    with pytest.raises(prices.InvalidQuantity) as refusal:
        prices.cost_nanos(price, usage)
    assert refusal.value.code == "invalid_quantity"


def test_a_cost_beyond_all_money_is_refused() -> None:
    price = priced(per_million(input_tokens="1000000"))
    most = money.MAX_NANOS // money.NANOS_PER_USD
    assert prices.cost_nanos(price, {"input_tokens": most}) == most * money.NANOS_PER_USD
    with pytest.raises(prices.InvalidQuantity):
        prices.cost_nanos(price, {"input_tokens": most + 1})


def test_a_cost_of_all_the_money_is_exact() -> None:
    rate, count = 153_092_023, 60_247_241_209  # their product is 2**63 - 1
    price = priced({"input_tokens": rate * prices.RATE_SCALE})
    assert prices.cost_nanos(price, {"input_tokens": count}) == money.MAX_NANOS


def test_the_dearest_rate_and_the_largest_window_are_allowed() -> None:
    price = replace(MINI, per_token={"input_tokens": 10**24}, context_window=prices.MAX_QUANTITY)
    assert prices.cost_nanos(price, {"input_tokens": 1}) == 10**15


def test_a_free_price_says_so_and_costs_nothing() -> None:
    rates = per_million(input_tokens="0", output_tokens="0")
    assert prices.cost_nanos(priced(rates, is_free=True), {"input_tokens": 10**15}) == 0
    with pytest.raises(prices.InvalidPrice):
        priced(rates)


def test_a_model_is_priced_for_what_it_has_rates_for() -> None:
    assert MINI.is_chat_priced
    assert MINI.is_embedding_priced
    embedding = priced(per_million(input_tokens="0.02"))
    assert embedding.is_embedding_priced
    assert not embedding.is_chat_priced
    assert MINI.has_rates("cached_input_tokens")
    assert not MINI.has_rates("output_tokens", "images")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("0.15", 150_000_000_000),
        ("0.000000000001", 1),
        (Decimal("1E+12"), 10**24),
        (Decimal("2.50"), 2_500_000_000_000),
    ],
)
def test_a_price_per_million_is_exact_to_twelve_decimals(text: Decimal | str, rate: int) -> None:
    assert prices.rate_per_million(text) == rate


def test_a_price_per_unit_is_exact_to_eighteen_decimals() -> None:
    assert prices.rate_per_unit("0.000000000000000001") == 1
    assert prices.rate_per_unit("0.01") == prices.rate_per_million("10000")
    assert prices.rate_per_unit("1000000") == 10**24


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "-0.1", "1e3", "NaN", "Infinity", " 1", "1_0", "\uff11", "9" * 5000),
        *(Decimal(text) for text in ("NaN", "Infinity", "-1", "1E+999999", "1E-999999")),
        *(1.5, True, None, 3, "1000000000000.1", "0.0000000000001"),
    ],
)
def test_what_is_no_price_is_refused(text: object) -> None:
    with pytest.raises(prices.InvalidPrice):
        prices.rate_per_million(text)  # type: ignore[arg-type]


@given(st.integers(0, 10**24))
def test_a_rate_is_shown_as_it_was_given(rate: int) -> None:
    assert prices.rate_per_unit(prices.format_rate(rate)) == rate
    if rate <= 10**20:
        assert prices.rate_per_million(prices.format_rate(rate, per=10**6)) == rate


def test_a_rate_is_shown_in_plain_decimals() -> None:
    assert prices.format_rate(MINI.per_token["input_tokens"], per=10**6) == "0.15"
    assert prices.format_rate(1) == "0.000000000000000001"
    assert prices.format_rate(0) == "0.00"


@pytest.mark.parametrize(
    ("per_token", "units", "tiers"),
    [
        ({}, {}, ()),
        ({"input_tokens": -1}, {}, ()),
        ({"input_tokens": 10**24 + 1}, {}, ()),
        ({"input_tokens": True}, {}, ()),
        ({"input_tokens": 1.0}, {}, ()),
        ({"input_tokens": 1}, {"documents": 0}, ()),
        ({"input_tokens": 1}, {"input_tokens": 1}, ()),
        ({"input_tokens": 1}, {}, (Tier(0, {"input_tokens": 1}),)),
        ({"input_tokens": 1}, {}, (Tier(5, {"input_tokens": 0}),)),
        ({"input_tokens": 1}, {}, (Tier(5, {"input_tokens": 1}), Tier(5, {"input_tokens": 2}))),
        ({"input_tokens": 1}, {"documents": 1}, (Tier(5, {"documents": 2}),)),
    ],
)
def test_a_price_that_makes_no_sense_is_not_made(
    per_token: dict[str, int], units: dict[str, int], tiers: tuple[Tier, ...]
) -> None:
    with pytest.raises(prices.InvalidPrice) as refusal:
        priced(per_token, units=units, tiers=tiers)
    assert refusal.value.code == "invalid_price"


@pytest.mark.parametrize("tokens", [0, -1, 10**15 + 1])
def test_a_price_names_windows_and_limits_that_can_be(tokens: int) -> None:
    with pytest.raises(prices.InvalidPrice):
        replace(MINI, context_window=tokens)
    with pytest.raises(prices.InvalidPrice):
        replace(MINI, max_output_tokens=tokens)
    assert replace(MINI, context_window=1, max_output_tokens=None).is_chat_priced
