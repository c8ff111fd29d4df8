"""`bursar activity` and `bursar usage`: what an account used, in tables and bars.

Owns what the commands take and how figures are laid out. Must not add or round anything: figures
are the server's.
"""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import charts, output
from bursar.cli.owner import options
from bursar.cli.owner.options import From, OfKey, OfLabel, OfModel, OfProject, To
from bursar.cli.owner.shapes import shape, usd
from bursar.cli.places.owner import Owner
from bursar.cli.session import MAX_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bursar.sdk.resources.usage import Activity, Group, Summary

_LONGEST: Final = 100
_DAY_COLUMNS: Final = ("date", "requests", "cost", "bar")
_MODEL_COLUMNS: Final = ("model", "requests", "tokens_in", "tokens_out", "cost", "bar")
_KEY_COLUMNS: Final = ("key_id", "name", "requests", "tokens_in", "tokens_out", "cost", "bar")
_GROUP_COLUMNS: Final = ("requests", "tokens_in", "tokens_out", "cost", "bar")


def activity(
    owner: Owner,
    days: Annotated[int, typer.Option(min=1, max=30, help="The last days.")] = 7,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Not a report that was kept for some minutes.")
    ] = False,
) -> None:
    """Show what was used in the last days: by day, model and key.

    \b
    bursar activity
    bursar activity --days 30 --fresh
    bursar activity --json | jq -r .total_stats.total_cost
    """
    found = owner.client.usage.activity(days=days, fresh=fresh)
    if owner.out.is_json:
        owner.out.show(shape(found))
        return
    _print_activity(owner, found)


def usage(
    owner: Owner,
    by: Annotated[
        str,
        typer.Option(
            metavar="WHAT", help="key, project, user, model, endpoint, or label: and its name."
        ),
    ] = "model",
    since: From = "7d",
    until: To = None,
    key: OfKey = None,
    project: OfProject = None,
    user: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=MAX_ID, help="Only of this user.")
    ] = None,
    model: OfModel = None,
    label: OfLabel = None,
    count: Annotated[
        int, typer.Option(min=1, max=_LONGEST, help="How many groups; the rest is one line.")
    ] = 20,
) -> None:
    """Show who used what: the dearest first, with a bar for each.

    \b
    bursar usage
    bursar usage --by key --from 30d
    bursar usage --by label:team --from 2026-11-01 --to 2026-12-01 --json
    """
    found = owner.client.usage.summary(
        group_by=by,
        start=options.parse_since(since, param="from"),
        end=options.parse_since(until, param="to"),
        key_id=key,
        project_id=project,
        user_id=user,
        model=model,
        label=label,
        most_groups=count,
    )
    if owner.out.is_json:
        owner.out.show(shape(found))
        return
    rows = group_rows(found)
    columns = (by.partition(":")[2] or by, *_GROUP_COLUMNS)
    owner.out.show_list("groups", rows, columns=columns, empty="Nothing was used.")
    output.say(f"{usd(found.total.total_cost)} USD in {found.total.request_count} requests.")


def group_rows(found: "Summary") -> list[dict[str, Any]]:
    """Return the groups of a summary as rows of a table, what is left of it in the last one."""
    column = found.group_by.partition(":")[2] or found.group_by
    entries = [(_group_name(group), group) for group in found.groups]
    sums = [*(group for _, group in entries), *((found.other,) if found.other else ())]
    names = [*(name for name, _ in entries), *(("(others)",) if found.other else ())]
    drawn = charts.bars([each.total_cost for each in sums])
    return [
        {
            column: name,
            "requests": each.request_count,
            "tokens_in": each.input_tokens,
            "tokens_out": each.output_tokens,
            "cost": usd(each.total_cost),
            "bar": bar,
        }
        for name, each, bar in zip(names, sums, drawn, strict=True)
    ]


def _group_name(group: "Group") -> str:
    if group.group is None:
        return "(none)"
    return f"{group.group} {group.name}" if group.name else str(group.group)


def _print_activity(owner: Owner, found: "Activity") -> None:
    days = sorted(found.daily_stats, key=lambda day: str(day.date))
    drawn = charts.bars([day.total_cost for day in days])
    rows = [
        {
            "date": str(day.date),
            "requests": day.total_requests,
            "cost": usd(day.total_cost),
            "bar": bar,
        }
        for day, bar in zip(days, drawn, strict=True)
    ]
    owner.out.show_list("days", rows, columns=_DAY_COLUMNS, empty="Nothing was used.")
    for name, used, columns in (
        ("models", found.top_models, _MODEL_COLUMNS),
        ("keys", found.api_key_usage, _KEY_COLUMNS),
    ):
        if used:
            owner.out.show_list(name, _used_rows(used), columns=columns, empty="")
    total = found.total_stats
    output.say(
        f"{usd(total.total_cost)} USD in {total.total_requests} requests of the last "
        f"{found.period_days} days, as of {shape(found.as_of)}."
    )


def _used_rows(used: "Sequence[Any]") -> list[dict[str, Any]]:
    drawn = charts.bars([each.total_cost for each in used])
    return [
        {
            "model": getattr(each, "model_name", None),
            "key_id": getattr(each, "api_key_id", None),
            "name": getattr(each, "api_key_name", None),
            "requests": each.request_count,
            "tokens_in": each.total_input_tokens,
            "tokens_out": each.total_output_tokens,
            "cost": usd(each.total_cost),
            "bar": bar,
        }
        for each, bar in zip(used, drawn, strict=True)
    ]
