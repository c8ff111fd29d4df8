"""`bursar limits`: what an account, a project, a user or a key may use, and who was refused.

Owns what the commands take and show.
"""

from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any, Final

import typer

from bursar.cli.owner import options
from bursar.cli.owner.options import From, OfKey, OfModel, To, Yes
from bursar.cli.owner.shapes import shape, shapes
from bursar.cli.places.owner import Owner

HELP: Final = "List, set and remove limits, and see what they refused."
_COLUMNS: Final = (
    *("scope", "resource", "window", "model", "limit", "soft_limit", "used", "left", "origin"),
    "resets_at",
)
_LOG_COLUMNS: Final = ("at", "allowance", "limit", "key_id", "model", "endpoint", "status", "count")
_MANY: Final = 1_000

Scope = Annotated[
    str, typer.Argument(metavar="SCOPE", help="account, or project:, user: or key: and an id.")
]
ResourceName = Annotated[
    str, typer.Argument(metavar="RESOURCE", help="cost, requests, tokens or concurrency.")
]
WindowName = Annotated[
    str, typer.Argument(metavar="WINDOW", help="minute, hour, day, week, month or lifetime.")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="PATTERN", help="Only these models; * and ? are wild."),
]


def list_limits(
    owner: Owner,
    scope: Annotated[
        str | None, typer.Option(metavar="SCOPE", help="Only those of this scope: key:3.")
    ] = None,
    resource: Annotated[str | None, typer.Option(help="Only those of this resource.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Only those that count calls of this model.")
    ] = None,
) -> None:
    """List limits, with what is used and left.

    What a plan gives to keys, users and projects is listed once it was used, and with --scope.

    \b
    bursar limits list
    bursar limits list --scope key:3 --model gpt-4o-mini
    """
    rows = shapes(owner.client.limits.list(scope=scope, resource=resource, model=model))
    owner.out.show_list("limits", rows, columns=_COLUMNS, empty="There are no such limits.")


def set_limit(
    owner: Owner,
    scope: Scope,
    resource: ResourceName,
    window: WindowName,
    limit: Annotated[
        str | None,
        typer.Option("--limit", metavar="AMOUNT", help="Refuse beyond this: USD, or a number."),
    ] = None,
    soft: Annotated[
        str | None,
        typer.Option("--soft", metavar="AMOUNT", help="Alert at this, and refuse nobody."),
    ] = None,
    model: ModelOption = None,
) -> None:
    """Set a limit; both of its amounts are what is given here. Servers follow within a second.

    \b
    bursar limits set account cost month --limit 500.00 --soft 400.00
    bursar limits set key:3 requests minute --limit 60
    bursar limits set key:3 tokens day --limit 200000 --model 'gpt-4o*'
    bursar limits set user:1 concurrency lifetime --limit 8
    """
    found = owner.client.limits.set(
        scope=scope,
        resource=resource,
        window=window,
        limit=options.parse_amount(limit, resource=resource, param="limit"),
        soft_limit=options.parse_amount(soft, resource=resource, param="soft"),
        model=model,
    )
    owner.out.show(shape(found))


def remove(
    owner: Owner,
    scope: Scope,
    resource: ResourceName,
    window: WindowName,
    model: ModelOption = None,
    yes: Yes = False,
) -> None:
    """Lift a limit that was set; what the account's plan gives counts again.

    \b
    bursar limits remove key:3 requests minute
    bursar limits remove key:3 requests minute --yes --json
    """
    of_model = f" for {model}" if model else ""
    question = f"Remove the limit of {scope}, {resource} per {window}{of_model}?"
    options.confirm(question, yes=yes, out=owner.out)
    owner.client.limits.remove(scope=scope, resource=resource, window=window, model=model)
    owner.out.show({"scope": scope, "resource": resource, "window": window, "is_removed": True})


def log(
    owner: Owner,
    key: OfKey = None,
    model: OfModel = None,
    since: From = None,
    until: To = None,
    count: Annotated[
        int, typer.Option(min=1, max=_MANY, help="How many lines, newest first.")
    ] = 100,
) -> None:
    """Show what limits refused: one line for each limit and second, with its first call.

    \b
    bursar limits log
    bursar limits log --key 3 --from 24h --count 20 --json
    """
    found = owner.client.limits.log(
        key_id=key,
        model=model,
        start=options.parse_since(since, param="from"),
        end=options.parse_since(until, param="to"),
        page_size=min(count, 100),
    )
    rows = shapes(islice(found, count))
    owner.out.show_list("refusals", rows, columns=_LOG_COLUMNS, empty="Nothing was refused.")


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("list", list_limits, {}),
    ("set", set_limit, {}),
    ("remove", remove, {}),
    ("log", log, {}),
)
