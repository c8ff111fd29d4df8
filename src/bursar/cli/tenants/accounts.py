"""`bursar accounts`: the customers of this installation.

Owns what the commands take and show. Must not know rules; `service.accounts` does.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.owner import options
from bursar.cli.owner.options import Yes
from bursar.cli.session import ACTOR, MAX_ID, Session
from bursar.core.money import format_usd, parse_usd
from bursar.core.tenants.terms import DEFAULT_CURRENCY

if TYPE_CHECKING:
    from bursar.service.accounts import Account
    from bursar.store.database import Database, WriteTx

HELP: Final = "Open, list, change, suspend, resume and cancel accounts."
_COLUMNS: Final = ("id", "name", "status", "balance", "time_zone", "created_at")
_PAGE: Final = 1_000
_WHOLE: Final = re.compile(r"-?[0-9]{1,16}", re.ASCII)

AccountId = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The account's id.")
]
PlanId = Annotated[
    int | None,
    typer.Option("--plan", metavar="ID", min=1, max=MAX_ID, help="The plan that it has."),
]
Currency = Annotated[
    str | None,
    typer.Option(metavar="CODE", help="What its invoices are made out in; amounts are in USD."),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature", metavar="NAME=VALUE", help="A feature: true, a whole number, text; repeatable."
    ),
]


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What the account is called.")],
    credit: Annotated[str, typer.Option(metavar="USD", help="Credit that it starts with.")] = "0",
    time_zone: Annotated[
        str, typer.Option(metavar="ZONE", help="The IANA time zone of its days and months.")
    ] = "UTC",
    plan: PlanId = None,
    currency: Currency = None,
    feature: Features = None,
) -> None:
    """Open an account.

    \b
    bursar accounts create Acme --credit 50.00
    bursar accounts create "Café Zürich" --time-zone Europe/Zurich --currency CHF --json
    bursar accounts create Bolt --plan 2 --feature max_users=5 --feature beta=true
    """
    agreed = _features(feature, ())

    async def work(tx: "WriteTx") -> "Account":
        from bursar.service import accounts
        from bursar.store.limits.plans import DEFAULT_PLAN_ID

        return await accounts.create(
            tx,
            name=name,
            time_zone=time_zone,
            credit_nanos=credit_nanos,
            actor=ACTOR,
            plan_id=DEFAULT_PLAN_ID if plan is None else plan,
            currency=currency or DEFAULT_CURRENCY,
            features=agreed,
        )

    credit_nanos = parse_usd(credit)
    session.out.show(shape(session.change(work)))


def list_accounts(session: Session) -> None:
    """List the accounts, oldest first.

    \b
    bursar accounts list
    bursar accounts list --json | jq '.accounts[].balance'
    """

    async def work(database: "Database") -> list["Account"]:
        from bursar.service import accounts

        found: list[Account] = []
        async with database.read() as tx:
            while True:
                after_id = found[-1].row.id if found else 0
                page = await accounts.list_accounts(tx, after_id=after_id, limit=_PAGE)
                found += page
                if len(page) < _PAGE:
                    return found

    rows = [shape(account) for account in session.run(work)]
    session.out.show_list("accounts", rows, columns=_COLUMNS, empty="There are no accounts.")


def show(session: Session, account_id: AccountId) -> None:
    """Show one account and its balance.

    \b
    bursar accounts show 1
    """

    async def work(database: "Database") -> "Account":
        from bursar.service import accounts

        async with database.read() as tx:
            return await accounts.get(tx, account_id=account_id)

    session.out.show(shape(session.run(work)))


def update(
    session: Session,
    account_id: AccountId,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    plan: PlanId = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="The IANA time zone of its days and months.")
    ] = None,
    currency: Currency = None,
    feature: Features = None,
    no_feature: Annotated[
        list[str] | None,
        typer.Option("--no-feature", metavar="NAME", help="One that it has no more; repeatable."),
    ] = None,
) -> None:
    """Change an account. What is not named stays as it is; servers follow within a second.

    \b
    bursar accounts update 7 --name "Acme Ltd" --plan 2
    bursar accounts update 7 --feature max_users=20 --no-feature beta
    """
    agreed = _features(feature, no_feature or ())
    if (name, plan, time_zone, currency) == (None,) * 4 and not agreed:
        raise typer.BadParameter("Say what to change.")

    async def work(tx: "WriteTx") -> "Account":
        from bursar.service import accounts
        from bursar.service.accounts import AccountChange

        change = AccountChange(name, time_zone, plan, currency, agreed or None)
        return await accounts.update(tx, account_id=account_id, change=change)

    session.out.show(shape(session.change(work)))


def suspend(session: Session, account_id: AccountId) -> None:
    """Stop an account's keys until it is resumed.

    \b
    bursar accounts suspend 7
    """

    async def work(tx: "WriteTx") -> "Account":
        from bursar.service import accounts

        return await accounts.suspend(tx, account_id=account_id)

    session.out.show(shape(session.change(work)))


def resume(session: Session, account_id: AccountId) -> None:
    """Let a suspended account's keys work again.

    \b
    bursar accounts resume 7
    """

    async def work(tx: "WriteTx") -> "Account":
        from bursar.service import accounts

        return await accounts.resume(tx, account_id=account_id)

    session.out.show(shape(session.change(work)))


def cancel(session: Session, account_id: AccountId, yes: Yes = False) -> None:
    """Stop an account's keys for good. Its figures and its statement stay.

    \b
    bursar accounts cancel 7
    bursar accounts cancel 7 --yes --json
    """
    options.confirm(f"Cancel account {account_id} for good?", yes=yes, out=session.out)

    async def work(tx: "WriteTx") -> "Account":
        from bursar.service import accounts

        return await accounts.cancel(tx, account_id=account_id)

    session.out.show(shape(session.change(work)))


def shape(account: "Account") -> dict[str, Any]:
    """An account as it is shown; the balance in USD."""
    row = account.row
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "time_zone": row.time_zone,
        "created_at": output.format_moment(row.created_ms),
        "balance": format_usd(account.balance_nanos),
        "plan_id": row.plan_id,
        "currency": row.currency,
        "features": dict(row.features),
    }


def _features(given: Sequence[str] | None, gone: Sequence[str]) -> dict[str, object]:
    """Features given as NAME=VALUE, and None for those that go; raises BadParameter."""
    found: dict[str, object] = dict.fromkeys(gone)
    for text in given or ():
        name, is_pair, value = text.partition("=")
        if not is_pair or name in found:
            raise typer.BadParameter("A feature is NAME=VALUE, and each name is given once.")
        if value in {"true", "false"}:
            found[name] = value == "true"
        else:
            found[name] = int(value) if _WHOLE.fullmatch(value) else value
    return found


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("create", create, {}),
    ("list", list_accounts, {}),
    ("show", show, {}),
    ("update", update, {}),
    ("suspend", suspend, {}),
    ("resume", resume, {}),
    ("cancel", cancel, {}),
)
