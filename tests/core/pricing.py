"""Prices and usage for the tests of costs and bounds, made by hand or generated."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import strategies as st

from bursar.core.prices import (
    INPUT,
    INPUT_PARTS,
    OUTPUT,
    OUTPUT_PARTS,
    Price,
    Tier,
    rate_per_million,
    rate_per_unit,
)

MINI = Price(
    id=1,
    model="mini",
    product="",
    per_token={
        INPUT: rate_per_million("0.15"),
        "cached_input_tokens": rate_per_million("0.075"),
        OUTPUT: rate_per_million("0.60"),
    },
    per_unit={},
    context_window=128_000,
    max_output_tokens=16_384,
    effective_ms=0,
    source="test",
)


def per_million(**prices: str) -> dict[str, int]:
    """Rates from prices in USD per million."""
    return {meter: rate_per_million(price) for meter, price in prices.items()}


def per_unit(**prices: str) -> dict[str, int]:
    """Rates from prices in USD per unit."""
    return {meter: rate_per_unit(price) for meter, price in prices.items()}


def priced(
    per_token: Mapping[str, int],
    *,
    units: Mapping[str, int] | None = None,
    tiers: tuple[Tier, ...] = (),
    is_free: bool = False,
) -> Price:
    """The mini price with other rates."""
    return replace(MINI, per_token=per_token, per_unit=units or {}, tiers=tiers, is_free=is_free)


# From less than a nano-USD per million tokens up to 100 USD per token.
RATES = st.integers(1, 10**4) | st.integers(1, 10**15) | st.integers(1, 10**20)
PROMPTS = st.integers(0, 300) | st.integers(0, 10**6)
OUTPUTS = st.integers(0, 300) | st.integers(0, 10**5)


@st.composite
def chat_prices(draw: st.DrawFn) -> Price:
    """A price with both directions, any of the parts, a flat rate or not, and some tiers."""
    parts = st.sampled_from((*INPUT_PARTS, *OUTPUT_PARTS))
    per_token = {INPUT: draw(RATES), OUTPUT: draw(RATES)}
    per_token.update(draw(st.dictionaries(parts, RATES)))
    units = {"requests": draw(RATES)} if draw(st.booleans()) else {}
    thresholds = sorted(draw(st.sets(st.integers(1, 300) | st.integers(1, 10**6), max_size=3)))
    meters = st.sampled_from((INPUT, OUTPUT, *INPUT_PARTS, *OUTPUT_PARTS))
    tiers = tuple(
        Tier(above, draw(st.dictionaries(meters, RATES, min_size=1))) for above in thresholds
    )
    return priced(per_token, units=units, tiers=tiers)


@st.composite
def usages(draw: st.DrawFn, prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    """Reported usage within these counts: totals, and parts that add up to no more."""
    usage = {"requests": draw(st.integers(0, 1))}
    families = ((INPUT, INPUT_PARTS, prompt_tokens), (OUTPUT, OUTPUT_PARTS, output_tokens))
    for total, parts, most in families:
        # The most is what matters to a bound, so it is drawn often.
        usage[total] = left = draw(st.just(most) | st.integers(0, most))
        for part in draw(st.permutations(parts)):
            usage[part] = draw(st.just(0) | st.just(left) | st.integers(0, left))
            left -= usage[part]
    return usage
