"""`bursar accounts`: the customers of this installation.

Owns what the commands take and show. Must not know rules; `service.accounts` does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.session import ACTOR, MAX_ID, Session
from bursar.core.money import format_usd, parse_usd

if TYPE_CHECKING:
    from bursar.service.accounts import Account
    from bursar.store.database import Database, WriteTx

HELP: Final = "Open, list, change, suspend and resume accounts."
_COLUMNS: Final = ("id", "name", "status", "balance", "time_zone", "created_at")
_PAGE: Final = 1_000

AccountId = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The account's id.")
]


def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What the account is called.")],
    credit: Annotated[str, typer.Option(metavar="USD", help="Credit that it starts with.")] = "0",
    time_zone: Annotated[
        str, typer.Option(metavar="ZONE", help="The IANA time zone of its days and months.")
    ] = "UTC",
) -> None:
    """Open an account.

    \b
    bursar accounts create Acme --credit 50.00
    bursar accounts create "Café Zürich" --time-zone Europe/Zurich --json
    """

    async def work(tx: "WriteTx") -> "Account":
        from bursar.service import accounts

        return await accounts.create(
            tx, name=name, time_zone=time_zone, credit_nanos=credit_nanos, actor=ACTOR
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
    plan: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=MAX_ID, help="Another plan.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="The IANA time zone of its days and months.")
    ] = None,
) -> None:
    """Change an account. What is not named stays as it is; servers follow within a second.

    \b
    bursar accounts update 7 --name "Acme Ltd" --plan 2
    """
    if (name, plan, time_zone) == (None,) * 3:
        raise typer.BadParameter("Say what to change.")

    async def work(tx: "WriteTx") -> "Account":
        from bursar.service import accounts
        from bursar.service.accounts import AccountChange

        change = AccountChange(name, time_zone, plan)
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
    }


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("create", create, {}),
    ("list", list_accounts, {}),
    ("show", show, {}),
    ("update", update, {}),
    ("suspend", suspend, {}),
    ("resume", resume, {}),
)
