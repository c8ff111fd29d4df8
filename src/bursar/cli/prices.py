"""`bursar prices`: the price book.

Owns what the commands take and show. Must not know rules; `service.prices` does.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.session import Session
from bursar.core.errors import Invalid
from bursar.core.money import format_usd
from bursar.core.prices import Price, format_rate

if TYPE_CHECKING:
    from bursar.service.prices import Explanation, Report
    from bursar.store.database import Database, WriteTx

HELP: Final = "Load, import, list and explain prices."
_COLUMNS: Final = ("name", "per_million", "per_unit", "context_window", "effective_at", "source")
_MOST_BYTES: Final = 5_000_000


def load(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True)
    ],
) -> None:
    """Add the prices of a YAML file. Nothing is ever edited: what changed is a new version.

    \b
    bursar prices load prices.yaml

    \b
    prices:
      - model: gpt-4o-mini
        per_million: { input_tokens: "0.15", output_tokens: "0.60" }
        context_window: 128000
        max_output_tokens: 16384
    """
    with file.open("rb") as opened:
        raw = opened.read(_MOST_BYTES + 1)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{file.name}: this is not UTF-8."
        raise Invalid("invalid_price_file", message) from error

    async def work(tx: "WriteTx") -> "Report":
        from bursar.service import prices

        return await prices.load(tx, text=text, name=file.name)

    _show_report(session, session.change(work))


def import_prices(
    session: Session,
    providers: Annotated[
        list[str] | None, typer.Argument(metavar="PROVIDER...", help="Whose prices: openai.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only these models; * and ? are wild. Repeatable."),
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="List the providers that can be imported.")
    ] = False,
) -> None:
    """Add the prices of model providers, as the package genai-prices knows them.

    What it does not know, or gives as zero, is skipped and said: unpriced is not free.

    \b
    bursar prices import openai --model 'gpt-4o*'
    bursar prices import anthropic google
    bursar prices import --list
    """
    if list_only:
        from bursar.service import prices

        rows = [{"name": name} for name in prices.providers()]
        session.out.show_list("providers", rows, columns=("name",), empty="There are none.")
        return
    if not providers:
        raise typer.BadParameter("Name a provider; see which there are with --list.")
    chosen = providers

    async def work(tx: "WriteTx") -> "Report":
        from bursar.service import prices

        whole = prices.Report()
        for provider in chosen:
            part = await prices.import_provider(tx, provider=provider, patterns=model or ["*"])
            whole.added.extend(part.added)
            whole.unchanged.extend(part.unchanged)
            whole.skipped.update(part.skipped)
            for name, count in part.unpriced.items():
                whole.unpriced[name] = whole.unpriced.get(name, 0) + count
        return whole

    _show_report(session, session.change(work))


def list_prices(session: Session) -> None:
    """List the prices in force, in USD.

    \b
    bursar prices list
    bursar prices list --json | jq -r '.prices[].name'
    """

    async def work(database: "Database") -> tuple[Price, ...]:
        from bursar.service import prices

        async with database.read() as tx:
            return await prices.list_current(tx, at_ms=database.clock_ms())

    rows = [_shape(price) for price in session.run(work)]
    session.out.show_list("prices", rows, columns=_COLUMNS, empty="There are no prices.")


def explain(
    session: Session,
    model: Annotated[str, typer.Argument(help="The exact name of a model or product.")],
) -> None:
    """Say which price of a model applies now, which ones did, and what a sample call costs.

    \b
    bursar prices explain sandbox/echo
    """

    async def work(database: "Database") -> "Explanation":
        from bursar.service import prices

        async with database.read() as tx:
            return await prices.explain(tx, name=model, at_ms=database.clock_ms())

    found = session.run(work)
    sample = None if found.sample_nanos is None else format_usd(found.sample_nanos)
    history = [_shape(price) for price in found.history]
    if session.out.is_json:
        current = None if found.current is None else _shape(found.current)
        session.out.show(
            {
                "name": found.name,
                "current": current,
                "cost_of_1000_input_and_1000_output_tokens": sample,
                "history": history,
            }
        )
        return
    if found.current is None:
        output.say("No price is in force yet; calls are refused.")
    else:
        session.out.show(_shape(found.current), title="In force now")
    if sample is not None:
        output.write(f"\n1000 tokens in and 1000 out cost {sample} USD.")
    columns = ("id", "effective_at", "per_million", "per_unit", "source")
    session.out.show_list("history", history, columns=columns, empty="")


def _show_report(session: Session, report: "Report") -> None:
    if session.out.is_json:
        session.out.show(
            {
                "added": [_shape(price) for price in report.added],
                "unchanged": report.unchanged,
                "skipped": report.skipped,
                "unpriced": report.unpriced,
            }
        )
        return
    rows = [_shape(price) for price in report.added]
    session.out.show_list("added", rows, columns=_COLUMNS, empty="Nothing is new.")
    for name, reason in report.skipped.items():
        output.say(f"skipped {name}: {reason}")
    for name, count in report.unpriced.items():
        output.say(f"not priced: {name} of {count} models; Bursar has no meter for it")
    counts = (len(report.added), len(report.unchanged), len(report.skipped))
    output.say("{} added, {} unchanged, {} skipped.".format(*counts))


def _shape(price: Price) -> dict[str, Any]:
    return {
        "id": price.id,
        "name": price.model or price.product,
        "is_free": price.is_free,
        "per_million": {
            meter: format_rate(rate, per=10**6) for meter, rate in price.per_token.items()
        },
        "per_unit": {meter: format_rate(rate) for meter, rate in price.per_unit.items()},
        "tiers": [
            {
                "above_input_tokens": tier.above_input_tokens,
                "per_million": {
                    meter: format_rate(rate, per=10**6) for meter, rate in tier.per_token.items()
                },
            }
            for tier in price.tiers
        ],
        "context_window": price.context_window,
        "max_output_tokens": price.max_output_tokens,
        "effective_at": output.format_moment(price.effective_ms),
        "source": price.source,
    }


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("load", load, {}),
    ("import", import_prices, {}),
    ("list", list_prices, {}),
    ("explain", explain, {}),
)
