"""`bursar credit`: what accounts may spend.

Owns what the commands take and show. Must not know rules; `service.ledger` does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli.session import ACTOR, Session
from bursar.cli.tenants.accounts import AccountId
from bursar.core.money import format_usd, parse_usd

if TYPE_CHECKING:
    from bursar.service.ledger import Posting
    from bursar.store.database import Database, WriteTx

HELP: Final = "Grant credit, and correct it."

Amount = Annotated[str, typer.Argument(metavar="USD", help="The amount: 12.50.")]


def grant(
    session: Session,
    account_id: AccountId,
    amount: Amount,
    note: Annotated[str, typer.Option(help="What the statement says about it.")] = "",
) -> None:
    """Give an account credit.

    \b
    bursar credit grant 1 50.00
    bursar credit grant 1 50.00 --note "Invoice 2026-17"
    """

    async def work(tx: "WriteTx") -> "Posting":
        from bursar.service import ledger

        return await ledger.grant(
            tx, account_id=account_id, amount_nanos=amount_nanos, note=note, actor=ACTOR
        )

    amount_nanos = parse_usd(amount)
    session.out.show(_shape(session.change(work), account_id))


def correct(
    session: Session,
    account_id: AccountId,
    amount: Annotated[
        str, typer.Argument(metavar="USD", help="The amount: 12.50 to add, -12.50 to take away.")
    ],
    reason: Annotated[str, typer.Option(help="Why; the statement shows it.")],
) -> None:
    """Correct an account's credit. What is used cannot be taken away.

    \b
    bursar credit correct 1 -5.00 --reason "Granted twice"
    """

    async def work(database: "Database") -> "Posting":
        from bursar.service import ledger

        async def attempt() -> "Posting":
            async with database.write() as tx:
                return await ledger.correct(
                    tx,
                    account_id=account_id,
                    amount_nanos=amount_nanos,
                    reason=reason,
                    actor=ACTOR,
                )

        return await ledger.when_leases_return(database, account_id=account_id, attempt=attempt)

    amount_nanos = parse_usd(amount)
    session.out.show(_shape(session.run(work), account_id))


def _shape(posting: "Posting", account_id: int) -> dict[str, Any]:
    entry = posting.entry
    return {
        "account_id": account_id,
        "transfer_id": entry.id,
        "kind": entry.kind,
        "amount": format_usd(entry.amount_nanos),
        "note": entry.note,
        "balance": format_usd(posting.balance_nanos),
    }


# A negative amount looks like an option; unknown ones are therefore arguments here.
COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("grant", grant, {"ignore_unknown_options": True}),
    ("correct", correct, {"ignore_unknown_options": True}),
)
