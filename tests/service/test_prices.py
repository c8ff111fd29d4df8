"""Prices: what is added, what is left out and why, and that nothing is ever edited."""

from __future__ import annotations

import pytest

from bursar.core.errors import Invalid, NotFound
from bursar.core.prices import INPUT, OUTPUT, cost_nanos, format_rate
from bursar.gateway.upstreams.sandbox import SANDBOX_PRICES
from bursar.service import prices
from bursar.service.prices import Report, catalog, files
from bursar.store import changes
from bursar.store.database import Database, WriteTx
from tests.databases import START_MS, Clock

DAY_MS = 86_400_000
GOOD = """
prices:
  - model: gpt-4o-mini
    per_million: { input_tokens: "0.15", cached_input_tokens: "0.075", output_tokens: "0.60" }
    context_window: 128000
    max_output_tokens: 16384
  - product: lexa
    per_unit: { documents: "0.01" }
  - model: future
    per_million: { input_tokens: 1, output_tokens: 2 }
    tiers:
      - { above_input_tokens: 200000, per_million: { input_tokens: "2.5" } }
    effective: 2026-12-01T00:00:00Z
  - model: gift
    free: true
    per_million: { input_tokens: "0", output_tokens: "0" }
"""


async def load(database: Database, text: str) -> Report:
    """Load one file in a transaction of its own."""
    async with database.write() as tx:
        return await prices.load(tx, text=text, name="prices.yaml")


async def test_file_is_loaded_with_every_field(database: Database, clock: Clock) -> None:
    report = await load(database, GOOD)
    assert sorted(row.model or row.product for row in report.added) == [
        "future",
        "gift",
        "gpt-4o-mini",
        "lexa",
    ]
    async with database.read() as tx:
        now = {
            row.model or row.product: row for row in await prices.list_current(tx, at_ms=clock())
        }
        later = await prices.list_current(tx, at_ms=START_MS + 30 * DAY_MS)
    assert sorted(now) == ["gift", "gpt-4o-mini", "lexa"]
    assert [row.tiers[0].above_input_tokens for row in later if row.tiers] == [200_000]
    mini = now["gpt-4o-mini"]
    assert (mini.context_window, mini.max_output_tokens) == (128_000, 16_384)
    assert mini.effective_ms == START_MS
    assert mini.source == "file prices.yaml"
    assert cost_nanos(mini, {INPUT: 1_000_000, OUTPUT: 1_000_000}) == 750_000_000
    assert cost_nanos(now["lexa"], {"documents": 3}) == 30_000_000
    assert cost_nanos(now["gift"], {INPUT: 10, OUTPUT: 10}) == 0


async def test_same_terms_are_not_added_again(database: Database, clock: Clock) -> None:
    await load(database, GOOD)
    clock.advance(DAY_MS)
    again = await load(database, GOOD)
    assert again.added == []
    assert sorted(again.unchanged) == ["future", "gift", "gpt-4o-mini", "lexa"]


async def test_other_terms_are_a_new_version_and_the_old_one_stays(
    database: Database, clock: Clock
) -> None:
    await load(database, GOOD)
    clock.advance(DAY_MS)
    report = await load(database, GOOD.replace('"0.60"', '"0.70"'))
    assert [row.model for row in report.added] == ["gpt-4o-mini"]
    async with database.read() as tx:
        found = await prices.explain(tx, name="gpt-4o-mini", at_ms=clock())
        before = await prices.explain(tx, name="gpt-4o-mini", at_ms=clock() - 1)
    assert found.current == report.added[0]
    assert [format_rate(row.per_token[OUTPUT], per=10**6) for row in found.history] == [
        "0.70",
        "0.60",
    ]
    assert found.sample_nanos == 850_000
    assert before.sample_nanos == 750_000


async def test_price_that_returns_is_a_new_version(database: Database, clock: Clock) -> None:
    for text in (GOOD, GOOD.replace('"0.60"', '"0.70"'), GOOD):
        report = await load(database, text)
        clock.advance(DAY_MS)
    assert [row.model for row in report.added] == ["gpt-4o-mini"]


async def test_new_prices_are_announced_and_unchanged_ones_are_not(database: Database) -> None:
    heard: list[str] = []
    database.listen(lambda news: heard.extend(change.topic for change in news))
    await load(database, GOOD)
    assert heard == [changes.PRICES]
    await load(database, GOOD)
    assert heard == [changes.PRICES]


def entry(fields: str) -> str:
    """A file with one entry for model m."""
    return f"prices:\n  - model: m\n    {fields}\n"


FINE = 'per_million: { input_tokens: "1", output_tokens: "1" }'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("prices", ["line 1", "names with values"]),
        ("prices: {}", ["line 1", "list"]),
        ("price: []", ["line 1", "price is not known"]),
        ("prices: [\n  a: b\n", ["line", "not YAML"]),
        ("prices:\n\t- a", ["line 2", "not YAML"]),
        ("prices: []\nprices: []", ["line 2", "twice"]),
        ("prices:\n  - per_unit: {a: 1}", ["line 2", "either a model or a product"]),
        (entry(FINE + "\n    product: p"), ["line 2", "either a model or a product"]),
        (entry(FINE + "\n    colour: red"), ["line 4, m", "colour is not known"]),
        (entry("per_million: { input_tokens: 0.15 }"), ["line 3, m", 'in quotes: "0.15"']),
        (entry("per_million: { input_tokens: .inf }"), ["line 3, m", "in quotes"]),
        (entry('per_million: { input_tokens: "-1" }'), ["line 3, m", "not negative"]),
        (entry("per_million: { input_tokens: -1 }"), ["line 3, m", "not negative"]),
        (entry('per_million: { input_tokens: "1e3" }'), ["line 3, m", "plain decimal"]),
        (entry('per_million: { input_tokens: "1_000" }'), ["line 3, m", "plain decimal"]),
        (entry("per_million: { input_tokens: 0x10 }"), ["line 3, m", "plain decimal"]),
        (entry("per_million: { input_tokens: null }"), ["line 3, m", "decimal number"]),
        (entry('per_million: { input_tokens: "0.0000000000001" }'), ["m", "too many decimals"]),
        (entry('per_million: { input_tokens: "0" }'), ["line 2, m", "free"]),
        (entry('per_million: { input_token: "1" }'), ["line 3, m", "input_token is not counted"]),
        (entry('per_unit: { input_tokens: "1" }'), ["line 3, m", "per_million, not per_unit"]),
        (entry('per_unit: { Documents: "1" }'), ["line 3, m", "not a meter"]),
        (entry('per_unit: { a: "1", a: "2" }'), ["line 3, m", "a stands here twice"]),
        (entry(FINE + "\n    context_window: many"), ["line 4, m", "whole number"]),
        (entry(FINE + "\n    context_window: 1.5"), ["line 4, m", "whole number"]),
        (entry(FINE + "\n    context_window: 0"), ["m", "count of tokens"]),
        (entry(FINE + "\n    free: maybe"), ["line 4, m", "true or false"]),
        (entry(FINE + "\n    effective: 2026-11-01"), ["line 4, m", "time zone"]),
        (entry(FINE + "\n    effective: soon"), ["line 4, m", "moment looks like"]),
        (entry(FINE + "\n    tiers: [{above_input_tokens: 5}]"), ["line 4, m", "tier"]),
        (entry(FINE) + f"  - model: m\n    {FINE}", ["line 4, m", "two prices"]),
        (entry("context_window: 5"), ["line 2, m", "at least one rate"]),
        ("prices:\n  - model: a b\n    " + FINE, ["line 2", "without spaces"]),
        ("prices:\n  - model: 4\n    " + FINE, ["line 2", "must be a name"]),
        ("prices:\n  - !!python/object:os.system {}", ["line 2"]),
        ("a: " * 10_000, ["not YAML"]),
        ("[" * 10_000, ["not YAML"]),
        ("\x00", ["not YAML"]),
    ],
)
def test_mistake_is_one_sentence_that_names_line_and_model(text: str, words: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        files.parse(text, name="prices.yaml", now_ms=0)
    message = caught.value.message
    assert caught.value.code == "invalid_price_file"
    assert message.startswith("prices.yaml")
    assert all(word in message for word in words), message
    assert "\n" not in message


async def test_file_with_one_mistake_changes_nothing(database: Database) -> None:
    with pytest.raises(Invalid):
        await load(database, GOOD + "  - model: x\n")
    async with database.read() as tx:
        assert await prices.list_current(tx, at_ms=START_MS) == ()


async def test_provider_is_imported_under_every_exact_name(database: Database) -> None:
    async with database.write() as tx:
        report = await prices.import_provider(tx, provider="openai", patterns=["gpt-4o-mini*"])
    names = [row.model for row in report.added]
    assert "gpt-4o-mini" in names
    assert "gpt-4o-mini-2024-07-18" in names
    mini = next(row for row in report.added if row.model == "gpt-4o-mini")
    assert mini.is_chat_priced
    assert "cached_input_tokens" in mini.per_token
    assert mini.context_window == 128_000
    assert mini.source.startswith("genai-prices")
    assert not mini.is_free


async def test_import_is_repeatable(database: Database) -> None:
    async with database.write() as tx:
        first = await prices.import_provider(tx, provider="anthropic")
    async with database.write() as tx:
        again = await prices.import_provider(tx, provider="anthropic")
    assert first.added
    assert again.added == []
    assert len(again.unchanged) == len(first.added)


async def test_unknown_provider_is_not_found(database: Database) -> None:
    async with database.write() as tx:
        with pytest.raises(NotFound, match="nobody"):
            await prices.import_provider(tx, provider="nobody")


@pytest.mark.parametrize("provider", catalog.providers())
def test_nothing_of_the_catalog_is_free_or_lost(provider: str) -> None:
    found = catalog.read(provider, patterns=["*"], now_ms=START_MS)
    for offer in found.offers:
        rates = [*offer.per_million.values(), *offer.per_unit.values()]
        rates += [usd for _, tier in offer.tiers for usd in tier.values()]
        assert all(usd > 0 for usd in rates), offer
        assert "input_tokens" in offer.per_million, offer
    assert all(reason for reason in found.skipped.values())
    assert {offer.model for offer in found.offers}.isdisjoint(found.skipped)
    known = next(row for row in catalog._providers() if row.id == provider)
    named = {offer.model for offer in found.offers} | found.skipped.keys()
    assert {model.id for model in known.models if " " not in model.id} <= named


def test_prices_by_the_time_of_day_are_left_out_with_the_reason() -> None:
    found = catalog.read("deepseek", patterns=["*"], now_ms=START_MS)
    assert any("time of day" in reason for reason in found.skipped.values())


def test_free_models_of_the_catalog_are_left_out_with_the_reason() -> None:
    found = catalog.read("openrouter", patterns=["*:free"], now_ms=START_MS)
    assert found.offers == []
    assert found.skipped
    assert all("zero" in reason for reason in found.skipped.values())


def test_long_prompts_cost_what_their_tier_says() -> None:
    (offer,) = catalog.read("google", patterns=["gemini-2.5-pro"], now_ms=START_MS).offers
    ((above, tier),) = offer.tiers
    assert above == 200_000
    assert tier["input_tokens"] > offer.per_million["input_tokens"]
    assert tier["output_tokens"] > offer.per_million["output_tokens"]


def test_what_is_sold_beside_tokens_is_reported() -> None:
    found = catalog.read("openai", patterns=["gpt-4o"], now_ms=START_MS)
    assert found.unpriced["web_searches"] == 1
    assert found.unpriced["service_tier"] == 1


async def test_built_in_models_get_their_prices_once(database: Database) -> None:
    async def seed(tx: WriteTx) -> Report:
        return await prices.seed(tx, terms=SANDBOX_PRICES, source="sandbox")

    async with database.write() as tx:
        first = await seed(tx)
    async with database.write() as tx:
        again = await seed(tx)
    assert {row.model for row in first.added} == SANDBOX_PRICES.keys()
    assert again.added == []


async def test_name_without_any_price_is_not_found(database: Database) -> None:
    async with database.read() as tx:
        with pytest.raises(NotFound, match="gpt-9"):
            await prices.explain(tx, name="gpt-9", at_ms=START_MS)


async def test_price_that_is_not_in_force_yet_is_explained(database: Database) -> None:
    await load(database, GOOD)
    async with database.read() as tx:
        found = await prices.explain(tx, name="future", at_ms=START_MS)
        product = await prices.explain(tx, name="lexa", at_ms=START_MS)
    assert found.current is None
    assert found.sample_nanos is None
    assert len(found.history) == 1
    assert product.current is not None
    assert product.sample_nanos is None
