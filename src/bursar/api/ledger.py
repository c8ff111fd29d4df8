"""Money on the wire: the statement, and what an operator adds to it.

Owns their shapes. Must not know rules; `service.ledger` does.
"""

import re
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.money import format_usd
from bursar.edge import pages
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import Moment, Usd, UsdTextIn, format_moment, parse_path_id
from bursar.service import accounts, ledger
from bursar.service.access import OperatorPrincipal, ProvisioningPrincipal
from bursar.service.ledger import Posting
from bursar.store.database import WriteTx
from bursar.store.ledger import Entry, EntryKind, Position

_POSITION: Final = re.compile(r"([0-9]{1,18})\n(usage|transfer)\n([\x21-\x7e]{1,128})")
_TRANSFER_ID: Final = re.compile(r"[0-9]{1,18}")


class TransactionShape(TypedDict):
    """What moved an account's credit: a grant, a correction, or the usage of one request.

    `amount` is above 0 where credit was added and below 0 where it was taken.
    """

    id: str
    at: Moment
    kind: str
    amount: Usd
    note: str
    key_id: int | None
    model: str | None


class TransactionListShape(TypedDict):
    """A page of transactions, newest first; `next_cursor` is null on the last one."""

    transactions: list[TransactionShape]
    next_cursor: str | None


class PostingShape(TypedDict):
    """A transaction that was just added, and the balance after it."""

    transaction: TransactionShape
    balance: Usd


class Grant(Model):
    """Credit to give, in USD, above 0."""

    amount: UsdTextIn
    note: str = ""


class Correction(Model):
    """Credit to add or, below 0, to take away, in USD."""

    amount: UsdTextIn
    reason: str


async def list_transactions(call: Call[ProvisioningPrincipal]) -> Response:
    """What moved your account's credit."""
    account_id = call.caller.account_id
    list_name = f"transactions {account_id}"
    limit = call.query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    behind = _position(call.query.find("cursor"), list_name)
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        found = await ledger.list_entries(tx, account_id=account_id, behind=behind, limit=limit + 1)
    page = found[:limit]
    cursor = None
    if len(found) > limit:
        last = page[-1]
        cursor = pages.write(list_name, last.at_ms, last.type.name.lower(), last.id)
    return reply(
        TransactionListShape(transactions=[_shape(entry) for entry in page], next_cursor=cursor)
    )


async def grant(call: Call[OperatorPrincipal]) -> Response:
    """Give an account credit."""
    account_id = await _existing(call)
    new = check(Grant, call.document)

    async def effect(tx: WriteTx) -> PostingShape:
        posting = await ledger.grant(
            tx,
            account_id=account_id,
            amount_nanos=new.amount,
            note=new.note,
            actor=call.caller.actor,
        )
        return _posting(posting)

    return await carry_out(call, effect, status=201)


async def correct(call: Call[OperatorPrincipal]) -> Response:
    """Correct an account's credit. What requests in flight hold cannot be taken."""
    account_id = await _existing(call)
    new = check(Correction, call.document)

    async def effect(tx: WriteTx) -> PostingShape:
        posting = await ledger.correct(
            tx,
            account_id=account_id,
            amount_nanos=new.amount,
            reason=new.reason,
            actor=call.caller.actor,
        )
        return _posting(posting)

    async def attempt() -> Response:
        return await carry_out(call, effect, status=201)

    await call.plane.database.catch_up()
    return await ledger.when_leases_return(
        call.plane.database, account_id=account_id, attempt=attempt
    )


async def _existing(call: Call[OperatorPrincipal]) -> int:
    account_id = parse_path_id(call.path["account_id"])
    async with call.plane.database.read() as tx:
        await accounts.get(tx, account_id=account_id)
    return account_id


def _position(cursor: str | None, list_name: str) -> Position | None:
    if cursor is None:
        return None
    at_ms, name, entry_id = pages.read(cursor, list_name, form=_POSITION)
    kind = EntryKind[name.upper()]
    if kind is EntryKind.TRANSFER and _TRANSFER_ID.fullmatch(entry_id) is None:
        raise pages.invalid_cursor()
    return Position(int(at_ms), kind, entry_id)


def _posting(posting: Posting) -> PostingShape:
    return PostingShape(
        transaction=_shape(posting.entry), balance=format_usd(posting.balance_nanos)
    )


def _shape(entry: Entry) -> TransactionShape:
    return TransactionShape(
        id=entry.id,
        at=format_moment(entry.at_ms),
        kind=entry.kind,
        amount=format_usd(entry.amount_nanos),
        note=entry.note,
        key_id=entry.key_id,
        model=entry.model,
    )
