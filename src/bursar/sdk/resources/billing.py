"""Money: what your account has, and what moved it."""

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


def _balance() -> Call[Balance]:
    """Your account's balance: all credit less all usage."""
    return Call("GET", "/v1/account/balance", results.read(Balance))


def _transactions(*, page_size: int | None = None) -> Call[Page[Transaction]]:
    """What moved your account's credit, newest first."""
    read = results.read_page(Transaction, "transactions")
    return Call("GET", "/v1/account/transactions", read, {"limit": page_size})


class Billing(Resource):
    """Money."""

    balance = sync(_balance)
    transactions = sync_pages(_transactions)


class AsyncBilling(AsyncResource):
    """Money."""

    balance = awaited(_balance)
    transactions = awaited_pages(_transactions)
