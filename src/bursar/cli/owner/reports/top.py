"""`bursar top`: what is being spent right now, by key and model.

Owns how often it looks and what it shows. What changed between two looks is all that it adds up.
"""

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli.owner.reports.usage import group_rows
from bursar.cli.owner.shapes import moment, shape, usd
from bursar.cli.places.owner import Owner

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bursar.sdk.resources.usage import Summary

_PARTS: Final = ("key", "model")
_COLUMNS: Final = ("requests", "cost", "now", "bar")
_GROUPS: Final = 10
_UNKNOWN: Final = "?"


def top(
    owner: Owner,
    hours: Annotated[
        int, typer.Option(min=1, max=720, help="Of so many hours; this one is the first.")
    ] = 1,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.5, max=3_600, help="How often to look.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
) -> None:
    """Watch what is spent, by key and model, until Ctrl-C. `now` came since the last look.

    It is ? for one that was not among the first ten then.

    Without a terminal, and with --json, it looks once.

    \b
    bursar top
    bursar top --hours 24 --interval 10
    bursar top --json | jq '.model.groups[0]'
    """
    looked = _look(owner, hours)
    if owner.out.is_json:
        owner.out.show({"at": moment(datetime.now(UTC)), "hours": hours, **shape(looked)})
        return
    if once or not sys.stdout.isatty():
        from bursar.cli.output import make_console

        make_console().print(_screen(owner, looked, looked, hours))
        return
    _watch(owner, looked, hours, interval)


def _watch(owner: Owner, looked: "dict[str, Summary]", hours: int, interval_s: float) -> None:
    from rich.live import Live

    from bursar.cli.output import make_console

    before = looked
    with Live(console=make_console(), auto_refresh=False, screen=True) as live:
        while True:
            live.update(_screen(owner, looked, before, hours), refresh=True)
            time.sleep(interval_s)
            before, looked = looked, _look(owner, hours)


def _look(owner: Owner, hours: int) -> "dict[str, Summary]":
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = this_hour - timedelta(hours=hours - 1)
    summary = owner.client.usage.summary
    return {part: summary(group_by=part, start=start, most_groups=_GROUPS) for part in _PARTS}


def _screen(
    owner: Owner, looked: "Mapping[str, Summary]", before: "Mapping[str, Summary]", hours: int
) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from bursar.cli.output import make_table

    total = looked[_PARTS[0]].total
    head = (
        f"{owner.client.options.base_url if owner.is_server else 'this installation'}, "
        f"{moment(datetime.now(UTC).replace(microsecond=0))}, {hours} h: "
        f"{usd(total.total_cost)} USD in {total.request_count} requests"
    )
    tables = [make_table(_rows(looked[part], before[part]), (part, *_COLUMNS)) for part in _PARTS]
    return Group(Text(head, style="bold"), *tables)


def _rows(found: "Summary", before: "Summary") -> list[dict[str, Any]]:
    costs = {group.group: group.total_cost for group in before.groups}
    # Who was not among the groups had spent nothing, unless there were more than these.
    of_others = None if before.other else Decimal(0)
    now = [_grown(group.total_cost, costs.get(group.group, of_others)) for group in found.groups]
    rows = group_rows(found)
    return [{**row, "now": now[n] if n < len(now) else ""} for n, row in enumerate(rows)]


def _grown(cost: Decimal, before: Decimal | None) -> str:
    if before is None:
        return _UNKNOWN
    # The span moves on: what has left it is no spending below zero.
    return f"+{usd(cost - before)}" if cost > before else ""
