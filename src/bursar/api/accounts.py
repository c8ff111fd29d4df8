"""Accounts on the wire: a customer's view of its own, and the operator's of all.

Owns their shape. Must not know rules; `service.accounts` does.
"""

import re
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.errors import Invalid
from bursar.core.money import format_usd
from bursar.core.tenants.terms import DEFAULT_CURRENCY, Feature
from bursar.edge import pages
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import IdIn, Moment, Usd, UsdTextIn, format_moment, parse_path_id
from bursar.service import accounts, ledger
from bursar.service.access import OperatorPrincipal, ProvisioningPrincipal
from bursar.service.accounts import Account, AccountChange
from bursar.store.database import WriteTx
from bursar.store.limits.plans import DEFAULT_PLAN_ID

_LIST: Final = "accounts"
_POSITION: Final = re.compile(r"([0-9]{1,18})")


class AccountShape(TypedDict):
    """An account; `status` is active, suspended or cancelled.

    Invoices are made out in `currency`; every amount here is in USD all the same.
    """

    id: int
    name: str
    status: str
    time_zone: str
    created_at: Moment
    balance: Usd
    plan_id: int
    currency: str
    features: dict[str, Feature]


class BalanceShape(TypedDict):
    """What an account has left, in USD."""

    balance: Usd


class AccountListShape(TypedDict):
    """A page of accounts; `next_cursor` is null on the last one."""

    accounts: list[AccountShape]
    next_cursor: str | None


class NewAccount(Model):
    """An account to open; `credit` is what it starts with, in USD."""

    name: str
    time_zone: str = "UTC"
    credit: UsdTextIn | None = None
    plan_id: IdIn = DEFAULT_PLAN_ID
    currency: str = DEFAULT_CURRENCY
    features: dict[str, object] | None = None


class AccountFields(Model):
    """What to change of an account: absent and null leave alone.

    Of `features` those that are named are set, or taken away where the value is null.
    """

    name: str | None = None
    time_zone: str | None = None
    plan_id: IdIn | None = None
    currency: str | None = None
    features: dict[str, object] | None = None


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """Your account."""
    return await _show(call, account_id=call.caller.account_id)


async def show_balance(call: Call[ProvisioningPrincipal]) -> Response:
    """Your account's balance: all credit less all usage."""
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        balance = await ledger.get_balance(tx, account_id=call.caller.account_id)
    return reply(BalanceShape(balance=format_usd(balance)))


async def create(call: Call[OperatorPrincipal]) -> Response:
    """Open an account."""
    new = check(NewAccount, call.document)
    if new.credit is not None and new.credit <= 0:
        raise Invalid("invalid_amount", "Starting credit must be above 0.", param="credit")

    async def effect(tx: WriteTx) -> AccountShape:
        account = await accounts.create(
            tx,
            name=new.name,
            time_zone=new.time_zone,
            credit_nanos=new.credit or 0,
            actor=call.caller.actor,
            plan_id=new.plan_id,
            currency=new.currency,
            features=new.features,
        )
        return shape(account)

    return await carry_out(call, effect, status=201)


async def list_accounts(call: Call[OperatorPrincipal]) -> Response:
    """Every account, oldest first."""
    cursor = call.query.find("cursor")
    limit = call.query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    after_id = 0 if cursor is None else int(pages.read(cursor, _LIST, form=_POSITION)[0])
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        found = await accounts.list_accounts(tx, after_id=after_id, limit=limit + 1)
    page = found[:limit]
    is_last = len(found) <= limit
    return reply(
        AccountListShape(
            accounts=[shape(account) for account in page],
            next_cursor=None if is_last else pages.write(_LIST, page[-1].row.id),
        )
    )


async def show_any(call: Call[OperatorPrincipal]) -> Response:
    """One account."""
    return await _show(call, account_id=parse_path_id(call.path["account_id"]))


async def update(call: Call[OperatorPrincipal]) -> Response:
    """Rename an account, or give it another plan, time zone, currency or other features."""
    account_id = parse_path_id(call.path["account_id"])

    async def effect(tx: WriteTx) -> Account:
        # Asked for before the fields are read: an unknown account is 404 whatever is to be changed.
        await accounts.get(tx, account_id=account_id)
        fields = check(AccountFields, call.document)
        change = AccountChange(
            fields.name, fields.time_zone, fields.plan_id, fields.currency, fields.features
        )
        return await accounts.update(tx, account_id=account_id, change=change)

    await call.plane.database.catch_up()
    return reply(shape(await call.plane.database.transact(effect)))


async def suspend(call: Call[OperatorPrincipal]) -> Response:
    """Stop an account's keys until it is resumed."""
    account_id = parse_path_id(call.path["account_id"])

    async def effect(tx: WriteTx) -> AccountShape:
        return shape(await accounts.suspend(tx, account_id=account_id))

    return await carry_out(call, effect, status=200)


async def resume(call: Call[OperatorPrincipal]) -> Response:
    """Let a suspended account's keys work again."""
    account_id = parse_path_id(call.path["account_id"])

    async def effect(tx: WriteTx) -> AccountShape:
        return shape(await accounts.resume(tx, account_id=account_id))

    return await carry_out(call, effect, status=200)


async def cancel(call: Call[OperatorPrincipal]) -> Response:
    """Stop an account's keys for good."""
    account_id = parse_path_id(call.path["account_id"])

    async def effect(tx: WriteTx) -> AccountShape:
        return shape(await accounts.cancel(tx, account_id=account_id))

    return await carry_out(call, effect, status=200)


def shape(account: Account) -> AccountShape:
    """An account as JSON has it."""
    row = account.row
    return AccountShape(
        id=row.id,
        name=row.name,
        status=row.status,
        time_zone=row.time_zone,
        created_at=format_moment(row.created_ms - row.created_ms % 1000),
        balance=format_usd(account.balance_nanos),
        plan_id=row.plan_id,
        currency=row.currency,
        features=dict(row.features),
    )


async def _show(
    call: Call[OperatorPrincipal] | Call[ProvisioningPrincipal], *, account_id: int
) -> Response:
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        return reply(shape(await accounts.get(tx, account_id=account_id)))
