"""`bursar plans`: what accounts get where they have set nothing, and the most that they may set.

Owns what the commands take and show. Must not know rules; `service.limits.plans` does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.owner import options
from bursar.cli.owner.limits import ModelOption, ResourceName, WindowName
from bursar.cli.owner.options import Yes
from bursar.cli.session import MAX_ID, Session
from bursar.core.allowances import Resource
from bursar.core.errors import Invalid
from bursar.core.money import format_usd, parse_usd

if TYPE_CHECKING:
    from bursar.service.limits.plans import Plan
    from bursar.store.database import Database, WriteTx
    from bursar.store.limits.plans import PlanLimit

HELP: Final = "Make, change and list plans: limits that accounts get, and bounds of what they set."
_COLUMNS: Final = ("id", "name", "limits", "created_at")
_LIMIT_COLUMNS: Final = ("scope", "resource", "window", "model", "default_limit", "most_limit")
_PAGE: Final = 1_000

PlanId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The plan's id.")]
Kind = Annotated[
    str, typer.Argument(metavar="SCOPE", help="Every one of: account, project, user or key.")
]


def list_plans(session: Session) -> None:
    """List the plans, oldest first.

    \b
    bursar plans list
    bursar plans list --json | jq '.plans[].limits'
    """

    async def work(database: "Database") -> list["Plan"]:
        from bursar.service.limits import plans

        found: list[Plan] = []
        async with database.read() as tx:
            while True:
                after_id = found[-1].row.id if found else 0
                page = await plans.list_plans(tx, after_id=after_id, limit=_PAGE)
                found += page
                if len(page) < _PAGE:
                    return found

    rows = [_shape(plan) for plan in session.run(work)]
    if not session.out.is_json:
        rows = [{**row, "limits": len(row["limits"])} for row in rows]
    session.out.show_list("plans", rows, columns=_COLUMNS, empty="There are no plans.")


def show(session: Session, plan_id: PlanId) -> None:
    """Show one plan and its limits.

    \b
    bursar plans show 1
    """

    async def work(database: "Database") -> "Plan":
        from bursar.service.limits import plans

        async with database.read() as tx:
            return await plans.get(tx, plan_id=plan_id)

    _show(session, session.run(work))


def create(
    session: Session, name: Annotated[str, typer.Argument(help="What the plan is called.")]
) -> None:
    """Make a plan without limits. Give it to an account with bursar accounts update.

    \b
    bursar plans create Pro
    bursar accounts update 7 --plan 2
    """

    async def work(tx: "WriteTx") -> "Plan":
        from bursar.service.limits import plans

        return await plans.create(tx, name=name)

    _show(session, session.change(work))


def rename(
    session: Session, plan_id: PlanId, name: Annotated[str, typer.Argument(help="Its new name.")]
) -> None:
    """Give a plan another name.

    \b
    bursar plans rename 2 "Pro 2027"
    """

    async def work(tx: "WriteTx") -> "Plan":
        from bursar.service.limits import plans

        return await plans.rename(tx, plan_id=plan_id, name=name)

    _show(session, session.change(work))


def delete(session: Session, plan_id: PlanId, yes: Yes = False) -> None:
    """Delete a plan that no account has.

    \b
    bursar plans delete 2
    bursar plans delete 2 --yes --json
    """
    options.confirm(f"Delete plan {plan_id} for good?", yes=yes, out=session.out)

    async def work(tx: "WriteTx") -> None:
        from bursar.service.limits import plans

        await plans.delete(tx, plan_id=plan_id)

    session.change(work)
    session.out.show({"id": plan_id, "is_deleted": True})


def set_limit(
    session: Session,
    plan_id: PlanId,
    scope: Kind,
    resource: ResourceName,
    window: WindowName,
    default: Annotated[
        str | None,
        typer.Option("--default", metavar="AMOUNT", help="What each one gets: USD, or a number."),
    ] = None,
    most: Annotated[
        str | None,
        typer.Option("--most", metavar="AMOUNT", help="The most that each one may set."),
    ] = None,
    model: ModelOption = None,
) -> None:
    """Set a limit of a plan; both of its amounts are what is given here. Its accounts follow.

    \b
    bursar plans set 1 key requests minute --default 60 --most 600
    bursar plans set 1 account cost month --most 1000.00
    """

    async def work(tx: "WriteTx") -> "Plan":
        from bursar.service.limits import plans, rules

        of = rules.parse_resource(resource)
        return await plans.set_limit(
            tx,
            plan_id=plan_id,
            kind=rules.parse_kind(scope),
            resource=of,
            window=rules.parse_window(window, resource=of),
            model=rules.clean_model(model),
            default=_parse_amount(default, resource=of, param="default"),
            most=_parse_amount(most, resource=of, param="most"),
        )

    _show(session, session.change(work))


def remove(
    session: Session,
    plan_id: PlanId,
    scope: Kind,
    resource: ResourceName,
    window: WindowName,
    model: ModelOption = None,
    yes: Yes = False,
) -> None:
    """Lift a limit of a plan; what accounts have set themselves stays.

    \b
    bursar plans remove 1 key requests minute
    bursar plans remove 1 key requests minute --yes --json
    """
    of_model = f" for {model}" if model else ""
    question = f"Remove plan {plan_id}'s limit of every {scope}, {resource} per {window}{of_model}?"
    options.confirm(question, yes=yes, out=session.out)

    async def work(tx: "WriteTx") -> "Plan":
        from bursar.service.limits import plans, rules

        of = rules.parse_resource(resource)
        await plans.remove_limit(
            tx,
            plan_id=plan_id,
            kind=rules.parse_kind(scope),
            resource=of,
            window=rules.parse_window(window, resource=of),
            model=rules.clean_model(model),
        )
        return await plans.get(tx, plan_id=plan_id)

    _show(session, session.change(work))


def _show(session: Session, plan: "Plan") -> None:
    shown = _shape(plan)
    if session.out.is_json:
        session.out.show(shown)
        return
    limits = shown.pop("limits")
    session.out.show(shown)
    session.out.show_list(
        "limits", limits, columns=_LIMIT_COLUMNS, empty="It has no limits: everything is allowed."
    )


def _shape(plan: "Plan") -> dict[str, Any]:
    return {
        "id": plan.row.id,
        "name": plan.row.name,
        "created_at": output.format_moment(plan.row.created_ms),
        "limits": [_limit(line) for line in plan.limits],
    }


def _limit(line: "PlanLimit") -> dict[str, Any]:
    return {
        "scope": line.scope_kind,
        "resource": line.resource,
        "window": line.window,
        "model": line.model or None,
        "default_limit": _format_amount(line.default, resource=line.resource),
        "most_limit": _format_amount(line.most, resource=line.resource),
    }


def _parse_amount(text: str | None, *, resource: Resource, param: str) -> int | None:
    if text is None:
        return None
    if resource is Resource.COST:
        return parse_usd(text)
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        message = f"It must be a whole number of {resource}."
        raise Invalid("invalid_amount", message, param=param)
    return int(text)


def _format_amount(amount: int | None, *, resource: str) -> str | int | None:
    if amount is None or resource != Resource.COST:
        return amount
    return format_usd(amount)


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("list", list_plans, {}),
    ("show", show, {}),
    ("create", create, {}),
    ("rename", rename, {}),
    ("delete", delete, {}),
    ("set", set_limit, {}),
    ("remove", remove, {}),
)
