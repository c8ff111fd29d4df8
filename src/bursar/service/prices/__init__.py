"""Prices: adding versions to the price book, and saying which one applies.

Owns when a version is new: terms that are in force already are not added again, and nothing is
ever edited. Must not know how price lists are written: `files` reads YAML, `catalog` reads the
data of genai-prices, and whoever has a table of their own hands it in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from bursar.core.audit.events import OPERATOR_LOG, AuditAction
from bursar.core.errors import Invalid, NotFound
from bursar.core.pricebook import PriceBook
from bursar.core.prices import INPUT, OUTPUT, InvalidPrice, InvalidQuantity, Price, cost_nanos
from bursar.service.audit import notes
from bursar.service.prices import catalog, files
from bursar.store import changes, counters, prices
from bursar.store.database import ReadTx, WriteTx
from bursar.store.prices import NewPrice

SAMPLE_TOKENS = 1_000


class Terms(Protocol):
    """What a model of our own costs: USD per million as decimal strings by meter, and its sizes."""

    @property
    def per_million(self) -> Mapping[str, str]:
        """Prices by meter."""
        ...

    @property
    def context_window(self) -> int | None:
        """How many tokens a prompt may have."""
        ...

    @property
    def max_output_tokens(self) -> int | None:
        """How many tokens an answer may have."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a price list: new versions, names whose terms were in force already, the rest.

    `skipped` has a reason by name; `unpriced` counts, by what is sold, the models that were added
    although that part of their price has no place in the book.
    """

    added: list[Price] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The price of one model: the version in force, all of them (newest first), and a sample.

    `sample_nanos` is what 1000 tokens in and 1000 out cost now; None where that has no price.
    """

    name: str
    current: Price | None
    history: tuple[Price, ...]
    sample_nanos: int | None


async def load(tx: WriteTx, *, text: str, name: str) -> Report:
    """Add the prices of a YAML file; `name` is the file's, for errors and as their source.

    All or nothing. Raises Invalid (`invalid_price_file`) with the line and the model.
    """
    offers = files.parse(text, name=name, now_ms=tx.now_ms)
    return await _add(tx, offers, Report())


async def import_provider(
    tx: WriteTx, *, provider: str, patterns: Sequence[str] = ("*",)
) -> Report:
    """Add what genai-prices knows of a provider's models whose names match one of the patterns.

    What it does not know, or gives as zero, is skipped: unpriced is not free. Raises NotFound for
    an unknown provider.
    """
    found = catalog.read(provider, patterns=patterns, now_ms=tx.now_ms)
    return await _add(tx, found.offers, Report(skipped=found.skipped, unpriced=found.unpriced))


async def seed(tx: WriteTx, *, terms: Mapping[str, Terms], source: str) -> Report:
    """Add the prices of models that are built in."""
    offers = [
        NewPrice(
            model=model,
            product="",
            per_million={meter: Decimal(usd) for meter, usd in row.per_million.items()},
            per_unit={},
            tiers=(),
            is_free=False,
            context_window=row.context_window,
            max_output_tokens=row.max_output_tokens,
            effective_ms=tx.now_ms,
            source=source,
        )
        for model, row in terms.items()
    ]
    return await _add(tx, offers, Report())


async def list_current(tx: ReadTx, *, at_ms: int) -> tuple[Price, ...]:
    """Return every price in force at that moment, by model and then by product."""
    return PriceBook(await prices.list_all(tx)).list(at_ms)


async def explain(tx: ReadTx, *, name: str, at_ms: int) -> Explanation:
    """Say what a model or product costs at that moment, and how that came; raises NotFound."""
    history = [row for row in await prices.list_all(tx) if name in (row.model, row.product)]
    if not history:
        raise NotFound("not_found", f"There is no price for {name}.")
    book = PriceBook(history)
    current = book.find(name, at_ms=at_ms) or book.find_product(name, at_ms=at_ms)
    newest_first = sorted(history, key=lambda row: (row.effective_ms, row.id), reverse=True)
    sample_nanos = None if current is None else _sample(current)
    return Explanation(name, current, tuple(newest_first), sample_nanos)


def providers() -> list[str]:
    """The providers that `import_provider` knows."""
    return catalog.providers()


def _sample(price: Price) -> int | None:
    try:
        return cost_nanos(price, {INPUT: SAMPLE_TOKENS, OUTPUT: SAMPLE_TOKENS})
    except InvalidQuantity:
        return None


async def _add(tx: WriteTx, offers: Iterable[NewPrice], report: Report) -> Report:
    # Locks the counter until commit: of two loads at once, the second sees what the first added.
    await counters.advance(tx, name="prices", by=0)
    histories: dict[tuple[str, str], list[Price]] = {}
    for row in await prices.list_all(tx):
        histories.setdefault((row.model, row.product), []).append(row)
    for offer in sorted(offers, key=lambda new: (new.effective_ms, new.model, new.product)):
        history = histories.setdefault((offer.model, offer.product), [])
        name = offer.model or offer.product
        if _is_in_force(offer, history):
            report.unchanged.append(name)
            continue
        former = _find(offer, history)
        price = await prices.insert_price(tx, price=offer)
        notes.note(
            tx,
            account_id=OPERATOR_LOG,
            action=AuditAction.PRICE_ADD,
            target=f"price:{price.id}",
            before=notes.of_price(former),
            after=notes.of_price(price),
        )
        history.append(price)
        report.added.append(price)
    if report.added:
        tx.announce(changes.PRICES, account_id=0)
    return report


def _is_in_force(offer: NewPrice, history: list[Price]) -> bool:
    try:
        wanted = prices.as_price(0, offer)
    except InvalidPrice as error:
        raise Invalid("invalid_price", f"{offer.model or offer.product}: {error}") from error
    found = _find(offer, history)
    return found is not None and _terms(found) == _terms(wanted)


def _find(offer: NewPrice, history: list[Price]) -> Price | None:
    """The price that is in force where the offer would begin."""
    book, at_ms = PriceBook(history), offer.effective_ms
    if offer.model:
        return book.find(offer.model, at_ms=at_ms)
    return book.find_product(offer.product, at_ms=at_ms)


def _terms(price: Price) -> tuple[object, ...]:
    return (
        dict(price.per_token),
        dict(price.per_unit),
        price.tiers,
        price.is_free,
        price.context_window,
        price.max_output_tokens,
    )
