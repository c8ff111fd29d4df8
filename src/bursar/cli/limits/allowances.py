"""`bursar limits`: what an account, a project, a user or a key may use, and who was refused.

Owns what the commands take and show. Must not know rules; `service.limits` does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.session import MAX_ID, Session
from bursar.core.allowances import Resource
from bursar.core.errors import Invalid
from bursar.core.money import format_usd, parse_usd

if TYPE_CHECKING:
    from bursar.service.limits.allowances import Limit
    from bursar.store.database import Database, WriteTx
    from bursar.store.limits.refusals import RefusalRow

HELP: Final = "List, set and remove limits, and see what they refused."
_COLUMNS: Final = (
    *("scope", "resource", "window", "model", "limit", "soft_limit", "used", "left", "origin"),
    "resets_at",
)
_LOG_COLUMNS: Final = ("at", "allowance", "limit", "key_id", "model", "endpoint", "status", "count")
_MANY: Final = 1_000

AccountOption = Annotated[
    int, typer.Option("--account", metavar="ID", min=1, max=MAX_ID, help="Whose limits.")
]
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
    session: Session,
    account: AccountOption = 1,
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

    async def work(database: "Database") -> list["Limit"]:
        from bursar.service import accounts
        from bursar.service.limits import allowances, rules
        from bursar.service.limits.allowances import Filter

        where = Filter(
            scope=None if scope is None else rules.parse_shown_scope(scope),
            resource=None if resource is None else rules.parse_resource(resource),
            model=model,
        )
        async with database.read() as tx:
            await accounts.get(tx, account_id=account)
            return await allowances.list_limits(
                tx, account_id=account, now_ms=database.clock_ms(), where=where
            )

    rows = [_shape(limit) for limit in session.run(work)]
    session.out.show_list("limits", rows, columns=_COLUMNS, empty="There are no such limits.")


def set_limit(
    session: Session,
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
    account: AccountOption = 1,
) -> None:
    """Set a limit; both of its amounts are what is given here. Servers follow within a second.

    \b
    bursar limits set account cost month --limit 500.00 --soft 400.00
    bursar limits set key:3 requests minute --limit 60
    bursar limits set key:3 tokens day --limit 200000 --model 'gpt-4o*'
    bursar limits set user:1 concurrency lifetime --limit 8
    """

    async def work(tx: "WriteTx") -> "Limit":
        from bursar.service import accounts
        from bursar.service.limits import allowances, rules

        await accounts.get(tx, account_id=account)
        of = rules.parse_resource(resource)
        return await allowances.set_limit(
            tx,
            account_id=account,
            scope=rules.parse_scope(scope),
            resource=of,
            window=rules.parse_window(window, resource=of),
            model=rules.clean_model(model),
            limit=parse_amount(limit, resource=of, param="limit"),
            soft=parse_amount(soft, resource=of, param="soft"),
        )

    session.out.show(_shape(session.change(work)))


def remove(
    session: Session,
    scope: Scope,
    resource: ResourceName,
    window: WindowName,
    model: ModelOption = None,
    account: AccountOption = 1,
) -> None:
    """Lift a limit that was set; what the account's plan gives counts again.

    \b
    bursar limits remove key:3 requests minute
    """

    async def work(tx: "WriteTx") -> None:
        from bursar.service import accounts
        from bursar.service.limits import allowances, rules

        await accounts.get(tx, account_id=account)
        of = rules.parse_resource(resource)
        await allowances.remove_limit(
            tx,
            account_id=account,
            scope=rules.parse_scope(scope),
            resource=of,
            window=rules.parse_window(window, resource=of),
            model=rules.clean_model(model),
        )

    session.change(work)
    session.out.show({"scope": scope, "resource": resource, "window": window, "is_removed": True})


def log(
    session: Session,
    account: AccountOption = 1,
    key: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=MAX_ID, help="Only this key's calls.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only calls of this model.")] = None,
    count: Annotated[
        int, typer.Option(min=1, max=_MANY, help="How many lines, newest first.")
    ] = 100,
) -> None:
    """Show what limits refused: one line for each limit and second, with its first call.

    \b
    bursar limits log
    bursar limits log --key 3 --count 20 --json
    """

    async def work(database: "Database") -> list["RefusalRow"]:
        from bursar.service import accounts
        from bursar.service.limits import refusals
        from bursar.store.limits.refusals import RefusalFilter

        async with database.read() as tx:
            await accounts.get(tx, account_id=account)
            return await refusals.list_refusals(
                tx,
                account_id=account,
                where=RefusalFilter(key_id=key, model=model),
                behind=None,
                limit=count,
            )

    rows = [_refusal(row) for row in session.run(work)]
    session.out.show_list("refusals", rows, columns=_LOG_COLUMNS, empty="Nothing was refused.")


def parse_amount(text: str | None, *, resource: Resource, param: str) -> int | None:
    """An amount in the resource's own unit; raises Invalid (`invalid_amount`)."""
    if text is None:
        return None
    if resource is Resource.COST:
        return parse_usd(text)
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        message = f"It must be a whole number of {resource}."
        raise Invalid("invalid_amount", message, param=param)
    return int(text)


def format_amount(amount: int | None, *, resource: str) -> str | int | None:
    """An amount as it is shown: USD for cost, else a number."""
    if amount is None or resource != Resource.COST:
        return amount
    return format_usd(amount)


def _shape(limit: "Limit") -> dict[str, Any]:
    allowance, ref = limit.allowance, limit.allowance.ref

    def amount(value: int | None) -> str | int | None:
        return format_amount(value, resource=ref.resource)

    return {
        "name": ref.name,
        "scope": ref.scope,
        "resource": ref.resource,
        "window": ref.window,
        "model": ref.model or None,
        "limit": amount(allowance.limit),
        "soft_limit": amount(allowance.soft),
        "used": amount(allowance.used),
        "leased": amount(allowance.leased),
        "left": amount(allowance.left),
        "origin": allowance.origin,
        "resets_at": output.format_moment(limit.resets_at_ms),
        "next_resets": [output.format_moment(moment) for moment in limit.next_resets_ms],
    }


def _refusal(row: "RefusalRow") -> dict[str, Any]:
    return {
        "at": output.format_moment(row.at_ms),
        "allowance": row.allowance,
        "limit": format_amount(row.limit_amount, resource=row.resource),
        "key_id": row.key_id,
        "model": row.model,
        "endpoint": row.endpoint,
        "status": row.status,
        "count": row.count,
    }


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("list", list_limits, {}),
    ("set", set_limit, {}),
    ("remove", remove, {}),
    ("log", log, {}),
)
