"""The ledger: granting and correcting credit, the balance, the statement.

Owns who may be credited and what a correction may take. Money moves by rows that are never changed;
the wallet's limit moves by the same amount in the same transaction. Must not know payments.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bursar.core import text
from bursar.core.allowances import Allowance
from bursar.core.audit.events import AuditAction
from bursar.core.errors import Conflict, Invalid, NotFound
from bursar.core.money import format_usd
from bursar.service.audit import notes
from bursar.store import changes, ledger
from bursar.store.database import Database, ReadTx, WriteTx
from bursar.store.ledger import Entry, NewTransfer, Position
from bursar.store.limits import allowances
from bursar.store.tenants import accounts

T = TypeVar("T")

_MAX_NOTE = 500
_LEASED = "credit_leased"
_TRIES = 30
_TRIES_A_CALL = 10
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Posting:
    """A line that was added to an account's statement, and the balance after it."""

    entry: Entry
    balance_nanos: int


async def grant(
    tx: WriteTx, *, account_id: int, amount_nanos: int, note: str, actor: str
) -> Posting:
    """Give an account credit.

    Raises Invalid (`invalid_amount` unless the amount is above 0, `balance_overflow` where it
    would not fit, or for the note), NotFound, and Conflict (`account_cancelled`).
    """
    if amount_nanos <= 0:
        raise Invalid("invalid_amount", "A grant must be above 0.", param="amount")
    return await _credit(
        tx, account_id=account_id, amount_nanos=amount_nanos, kind="grant", note=note, actor=actor
    )


async def correct(
    tx: WriteTx, *, account_id: int, amount_nanos: int, reason: str, actor: str
) -> Posting:
    """Correct an account's credit upwards or downwards.

    What is used cannot be taken (Conflict `insufficient_credit`); what workers have leased cannot
    be taken at the moment (Conflict `credit_leased`: see `when_leases_return`). Else as `grant`;
    the reason must say something.
    """
    reason = text.clean_name(reason, max_len=_MAX_NOTE, param="reason")
    if amount_nanos > 0:
        return await _credit(
            tx,
            account_id=account_id,
            amount_nanos=amount_nanos,
            kind="correction",
            note=reason,
            actor=actor,
        )
    if amount_nanos == 0:
        raise Invalid("invalid_amount", "A correction must not be 0.", param="amount")
    await _require_account(tx, account_id=account_id)
    if not await allowances.debit_wallet(tx, account_id=account_id, amount_nanos=-amount_nanos):
        raise _cannot_debit(await allowances.get_wallet(tx, account_id=account_id), -amount_nanos)
    new = NewTransfer(
        account_id=account_id,
        kind="correction",
        source=ledger.WALLET,
        target="funding",
        amount_nanos=-amount_nanos,
        note=reason,
        actor=actor,
    )
    return await _post(tx, new=new)


async def when_leases_return(
    database: Database, *, account_id: int, attempt: Callable[[], Awaitable[T]]
) -> T:
    """Return what `attempt` returns, after calling in the account's leases if they are in its way.

    Workers are asked to return what lies idle, and the attempt is repeated for three seconds;
    credit that requests in flight hold stays leased (Conflict `credit_leased`). Each attempt is a
    transaction of its own, and so is each call, of which there is one a second.
    """
    for number in range(_TRIES):
        try:
            return await attempt()
        except Conflict as refusal:
            if refusal.code != _LEASED:
                raise
        if number % _TRIES_A_CALL == 0:
            await database.transact(partial(_call_in, account_id=account_id))
        await asyncio.sleep(_PAUSE_S)
    return await attempt()


async def _call_in(tx: WriteTx, *, account_id: int) -> None:
    subject = allowances.wallet(account_id).name
    tx.announce(changes.ALLOWANCE, account_id=account_id, subject=subject)


async def get_wallet(tx: ReadTx, *, account_id: int) -> Allowance:
    """Return an existing account's wallet: what it was given (`limit`) and has used."""
    return await allowances.get_wallet(tx, account_id=account_id)


async def get_balance(tx: ReadTx, *, account_id: int) -> int:
    """Return an existing account's balance in nano-USD: all credit less all usage."""
    return balance_of(await allowances.get_wallet(tx, account_id=account_id))


async def list_entries(
    tx: ReadTx, *, account_id: int, behind: Position | None, limit: int
) -> list[Entry]:
    """Return what moved the account's credit, newest first."""
    return await ledger.list_entries(tx, account_id=account_id, behind=behind, limit=limit)


def is_leased() -> Conflict:
    """Return what says that leases are in the way: see `when_leases_return`."""
    message = "Requests in flight hold that credit. Try again later."
    return Conflict(_LEASED, message, retry_after_s=1)


def balance_of(wallet: Allowance) -> int:
    """What is left of a wallet, in nano-USD."""
    return wallet.left or 0


async def _credit(
    tx: WriteTx, *, account_id: int, amount_nanos: int, kind: str, note: str, actor: str
) -> Posting:
    note = text.clean_name(note, max_len=_MAX_NOTE, param="note") if note else ""
    await _require_account(tx, account_id=account_id)
    if not await allowances.credit_wallet(tx, account_id=account_id, amount_nanos=amount_nanos):
        raise Invalid("balance_overflow", "The balance would be too large.", param="amount")
    new = NewTransfer(
        account_id=account_id,
        kind=kind,
        source="funding",
        target=ledger.WALLET,
        amount_nanos=amount_nanos,
        note=note,
        actor=actor,
    )
    return await _post(tx, new=new)


async def _post(tx: WriteTx, *, new: NewTransfer) -> Posting:
    entry = await ledger.insert_transfer(tx, new=new)
    subject = allowances.wallet(new.account_id).name
    tx.announce(changes.ALLOWANCE, account_id=new.account_id, subject=subject)
    balance_nanos = await get_balance(tx, account_id=new.account_id)
    is_grant = new.kind == "grant"
    notes.note(
        tx,
        account_id=new.account_id,
        action=AuditAction.CREDIT_GRANT if is_grant else AuditAction.CREDIT_CORRECT,
        target=f"transfer:{entry.id}",
        after={
            "amount": format_usd(entry.amount_nanos),
            "balance": format_usd(balance_nanos),
            "note": new.note,
        },
    )
    return Posting(entry, balance_nanos)


async def _require_account(tx: ReadTx, *, account_id: int) -> None:
    account = await accounts.find_account(tx, account_id=account_id)
    if account is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    if account.status == "cancelled":
        raise Conflict("account_cancelled", "The account is cancelled.")


def _cannot_debit(wallet: Allowance, amount_nanos: int) -> Conflict:
    if balance_of(wallet) < amount_nanos:
        return Conflict("insufficient_credit", "The account does not have that much credit left.")
    return is_leased()
