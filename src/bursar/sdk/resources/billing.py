"""Money: what your account has, and what moved it."""

from datetime import date
from typing import Final

from bursar.sdk import results
from bursar.sdk.calls import Call, Page
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.results import Moment, Result, Usd


class Balance(Result):
    """What an account has left, in USD."""

    balance: Usd


class Transaction(Result):
    """A grant, a correction, or the usage of one request; `amount` in USD, below 0 if taken."""

    id: str
    at: Moment
    kind: str
    amount: Usd
    note: str
    key_id: int | None
    model: str | None


class ProductCost(Result):
    """What was used of one product, and what that cost in USD; `quantities` are sums by meter."""

    product: str
    cost: Usd
    events: int
    quantities: dict[str, int]


class Bill(Result):
    """A calendar month of an account, in its time zone; the days are both in it.

    `ends_at` is not in it any more. The invoice for it is due to be made on `next_invoice_on`.
    Costs are in `currency`, which is USD, whatever invoices are made out in.
    """

    starts_at: Moment
    ends_at: Moment
    first_day: date
    last_day: date
    next_invoice_on: date
    time_zone: str
    plan_id: int
    plan_name: str
    currency: str
    invoice_currency: str
    total_cost: Usd
    products: tuple[ProductCost, ...]


def _balance() -> Call[Balance]:
    """Your account's balance: all credit less all usage."""
    return Call("GET", "/v1/account/balance", results.read(Balance))


def _transactions(*, page_size: int | None = None) -> Call[Page[Transaction]]:
    """What moved your account's credit, newest first."""
    read = results.read_page(Transaction, "transactions")
    return Call("GET", "/v1/account/transactions", read, {"limit": page_size})


def _month(month: str | None = None) -> Call[Bill]:
    """What your account used in a month such as "2026-11", else in the present one, by product."""
    return Call("GET", "/v1/account/billing", results.read(Bill), {"month": month})


class Billing(Resource):
    """Money."""

    balance: Final = sync(_balance)
    transactions: Final = sync_pages(_transactions)
    month: Final = sync(_month)


class AsyncBilling(AsyncResource):
    """Money."""

    balance: Final = awaited(_balance)
    transactions: Final = awaited_pages(_transactions)
    month: Final = awaited(_month)
