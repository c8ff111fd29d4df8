"""No request costs more than its bound, and what is said to be affordable is."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bursar.core import bounds, prices
from bursar.core.money import MAX_NANOS
from bursar.core.prices import Price, Tier
from tests.core.pricing import (
    MINI,
    OUTPUTS,
    PROMPTS,
    chat_prices,
    per_million,
    per_unit,
    priced,
    usages,
)

MONEY = st.integers(0, 1000) | st.integers(0, 10**12) | st.integers(0, MAX_NANOS)


@pytest.mark.parametrize(
    ("body_bytes", "has_media", "window", "tokens"),
    [
        (100, False, None, 100),
        (100, False, 128_000, 100),
        (500_000, False, 128_000, 128_000),
        (100, True, 128_000, 128_000),
        (500_000, True, 128_000, 128_000),
        (100, True, None, bounds.UNKNOWN_CONTEXT_WINDOW),
        (0, False, 10, 0),
    ],
)
def test_a_prompt_is_bounded_by_its_bytes_and_the_window(
    body_bytes: int, has_media: bool, window: int | None, tokens: int
) -> None:
    found = bounds.prompt_bound(body_bytes, has_media=has_media, context_window=window)
    assert found == tokens


@pytest.mark.parametrize(
    ("prompt", "output", "nanos"),
    [(0, 0, 0), (1, 0, 150), (0, 1, 600), (1000, 500, 450_000)],
)
def test_the_bound_of_a_plain_request(prompt: int, output: int, nanos: int) -> None:
    found = bounds.request_bound_nanos(MINI, prompt_tokens=prompt, output_tokens=output)
    assert found == nanos


def test_the_bound_takes_the_dearest_part_tier_and_the_flat_rate() -> None:
    tiers = (
        Tier(1000, per_million(input_tokens="2", output_audio_tokens="50")),
        Tier(2000, per_million(input_tokens="1")),
    )
    price = priced(
        per_million(input_tokens="1", cache_write_tokens="1.25", output_tokens="8"),
        units=per_unit(requests="0.001"),
        tiers=tiers,
    )

    def bound(prompt: int) -> int:
        return bounds.request_bound_nanos(price, prompt_tokens=prompt, output_tokens=100)

    assert bound(1000) == 1_000_000 + 1250 * 1000 + 8000 * 100
    assert bound(1001) == 1_000_000 + 2000 * 1001 + 50_000 * 100
    assert bound(2001) == 1_000_000 + 2000 * 2001 + 50_000 * 100


@settings(max_examples=400)
@given(st.data(), chat_prices(), PROMPTS, OUTPUTS)
def test_no_usage_within_the_counts_costs_more_than_the_bound(
    data: st.DataObject, price: Price, prompt: int, output: int
) -> None:
    try:
        most = bounds.request_bound_nanos(price, prompt_tokens=prompt, output_tokens=output)
    except prices.InvalidQuantity:
        return
    usage = data.draw(usages(prompt, output))
    assert prices.cost_nanos(price, usage) <= most


@example(MINI, 0, 0)
@example(MINI, 0, 599)
@example(MINI, 0, 600)
@settings(max_examples=400)
@given(chat_prices(), PROMPTS, MONEY)
def test_affordable_output_fits_and_one_token_more_does_not(
    price: Price, prompt: int, nanos: int
) -> None:
    tokens = bounds.affordable_output(price, prompt_tokens=prompt, nanos=nanos)

    def fits(output: int) -> bool:
        try:
            most = bounds.request_bound_nanos(price, prompt_tokens=prompt, output_tokens=output)
        except prices.InvalidQuantity:
            return False
        return most <= nanos

    assert tokens == 0 or fits(tokens)
    assert tokens == prices.MAX_QUANTITY or not fits(tokens + 1)


def test_nothing_is_affordable_without_money_but_what_is_free() -> None:
    assert bounds.affordable_output(MINI, prompt_tokens=1, nanos=0) == 0
    assert bounds.affordable_output(MINI, prompt_tokens=0, nanos=-1) == 0
    free = priced(per_million(input_tokens="0", output_tokens="0"), is_free=True)
    assert bounds.affordable_output(free, prompt_tokens=10, nanos=0) == prices.MAX_QUANTITY
    assert bounds.affordable_output(free, prompt_tokens=10, nanos=-1) == 0
    assert bounds.request_bound_nanos(free, prompt_tokens=10, output_tokens=10) == 0


@pytest.mark.parametrize(
    ("free_nanos", "tokens"),
    [
        (10**12, 16_384),  # plenty: the model's own maximum
        (600 * 20_000, 10_000),  # half of the credit
        (600 * 2_048, 1_024),  # half is just enough to be useful
        (600 * 2_046, 2_046),  # half would not be: all of it
        (600 * 5, 5),
        (600, 1),
        (599, None),
        (0, None),
        (-5, None),
    ],
)
def test_a_request_without_a_limit_gets_half_of_the_credit_or_all_of_little(
    free_nanos: int, tokens: int | None
) -> None:
    assert bounds.default_output(MINI, prompt_tokens=0, free_nanos=free_nanos) == tokens


@pytest.mark.parametrize(
    ("window", "maximum", "tokens"),
    [
        (None, None, bounds.UNKNOWN_MAX_OUTPUT),
        (2048, None, 2048),
        (128_000, None, bounds.UNKNOWN_MAX_OUTPUT),
        (2048, 512, 512),
    ],
)
def test_an_unknown_maximum_is_modest(window: int | None, maximum: int | None, tokens: int) -> None:
    price = Price(9, "m", "", MINI.per_token, {}, window, maximum, 0, "test")
    assert bounds.default_output(price, prompt_tokens=10, free_nanos=10**15) == tokens


@given(chat_prices(), PROMPTS, MONEY)
def test_the_default_output_is_always_affordable(price: Price, prompt: int, free: int) -> None:
    tokens = bounds.default_output(price, prompt_tokens=prompt, free_nanos=free)
    if tokens is None:
        assert bounds.affordable_output(price, prompt_tokens=prompt, nanos=free) == 0
    else:
        assert 0 < tokens <= bounds.affordable_output(price, prompt_tokens=prompt, nanos=free)


def test_tokens_without_a_rate_have_no_bound() -> None:
    embedding = priced(per_million(input_tokens="0.02"))
    assert bounds.request_bound_nanos(embedding, prompt_tokens=50, output_tokens=0) == 1000
    with pytest.raises(prices.Unpriced):
        bounds.request_bound_nanos(embedding, prompt_tokens=50, output_tokens=1)
    with pytest.raises(prices.Unpriced):
        bounds.affordable_output(embedding, prompt_tokens=50, nanos=10**9)
    documents = priced({}, units=per_unit(documents="0.01"))
    with pytest.raises(prices.Unpriced):
        bounds.request_bound_nanos(documents, prompt_tokens=1, output_tokens=0)


@pytest.mark.parametrize(("prompt", "output"), [(-1, 0), (0, -1), (10**16, 0), (0, 10**18)])
def test_counts_out_of_range_have_no_bound(prompt: int, output: int) -> None:
    with pytest.raises(prices.InvalidQuantity):
        bounds.request_bound_nanos(MINI, prompt_tokens=prompt, output_tokens=output)


def test_a_bound_is_at_least_one_where_anything_is_priced() -> None:
    tiny = priced({"input_tokens": 1, "output_tokens": 1})
    assert bounds.request_bound_nanos(tiny, prompt_tokens=1, output_tokens=0) == 1
    assert bounds.request_bound_nanos(tiny, prompt_tokens=0, output_tokens=1) == 1
    assert bounds.affordable_output(tiny, prompt_tokens=0, nanos=0) == 0
    assert bounds.affordable_output(tiny, prompt_tokens=0, nanos=1) == 1_499_999_999


def test_the_largest_counts_and_all_of_the_money_are_within_bounds() -> None:
    most = prices.MAX_QUANTITY
    tiny = priced({"input_tokens": 1, "output_tokens": 1})
    assert bounds.request_bound_nanos(tiny, prompt_tokens=most, output_tokens=most) == 2 * 10**6
    assert bounds.affordable_output(tiny, prompt_tokens=most, nanos=10**6 + 1) > 10**9
    rate, count = 153_092_023, 60_247_241_209  # their product is 2**63 - 1
    dear = priced({"output_tokens": rate * prices.RATE_SCALE})
    assert bounds.request_bound_nanos(dear, prompt_tokens=0, output_tokens=count) == MAX_NANOS
    assert bounds.affordable_output(dear, prompt_tokens=0, nanos=MAX_NANOS) == count


def test_a_bound_beyond_all_money_is_refused() -> None:
    dear = priced(per_million(input_tokens="1000000", output_tokens="1000000"))
    with pytest.raises(prices.InvalidQuantity):
        bounds.request_bound_nanos(dear, prompt_tokens=0, output_tokens=10**10)


BODIES = st.integers(0, 200_000)
CHOICES = st.integers(1, 128)


@settings(max_examples=300)
@given(chat_prices(), BODIES, OUTPUTS, CHOICES, MONEY)
def test_a_limit_that_was_asked_for_is_held_as_it_is_sent(
    price: Price, body: int, wanted: int, choices: int, free: int
) -> None:
    try:
        found = bounds.bound_request(
            price,
            body_bytes=body,
            has_media=False,
            has_output=True,
            wanted_output=wanted,
            choices=choices,
            free_nanos=lambda: free,
        )
    except prices.InvalidQuantity:
        return
    assert found.max_output is not None
    assert found.max_output <= wanted
    assert found.output_tokens == found.max_output * choices
    assert found.tokens == body // bounds.BYTES_PER_TOKEN + found.output_tokens
    assert found.cost_nanos == bounds.request_bound_nanos(
        price, prompt_tokens=found.prompt_tokens, output_tokens=found.output_tokens
    )


@settings(max_examples=300)
@given(chat_prices(), BODIES, CHOICES, MONEY)
def test_without_a_limit_all_answers_together_are_affordable_or_one_token_each_is_asked_for(
    price: Price, body: int, choices: int, free: int
) -> None:
    try:
        found = bounds.bound_request(
            price,
            body_bytes=body,
            has_media=False,
            has_output=True,
            wanted_output=None,
            choices=choices,
            free_nanos=lambda: free,
        )
    except prices.InvalidQuantity:
        return
    assert found.cost_nanos <= free or found.max_output == 1


def test_a_request_without_output_sends_no_limit() -> None:
    found = bounds.bound_request(
        MINI,
        body_bytes=400,
        has_media=False,
        has_output=False,
        wanted_output=None,
        choices=1,
        free_nanos=lambda: 0,
    )
    assert found == bounds.Bound(400, None, 0, 60_000, 100)
