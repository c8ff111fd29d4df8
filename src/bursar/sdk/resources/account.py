"""Your account."""

from typing import Final

from pydantic import Field

from bursar.sdk import results
from bursar.sdk.calls import Call
from bursar.sdk.faces import AsyncResource, Resource, awaited, sync
from bursar.sdk.results import Moment, Result, Usd


class AccountInfo(Result):
    """An account; `balance` is all credit less all usage, in USD whatever the `currency`.

    `currency` is what its invoices are made out in, `features` are names and values.
    """

    id: int
    name: str
    status: str
    time_zone: str
    created_at: Moment
    balance: Usd
    plan_id: int | None = None
    currency: str = "USD"
    features: dict[str, bool | int | str] = Field(default_factory=dict)


def _get() -> Call[AccountInfo]:
    """Your account, its balance included."""
    return Call("GET", "/v1/account", results.read(AccountInfo))


class Account(Resource):
    """Your account."""

    get: Final = sync(_get)


class AsyncAccount(AsyncResource):
    """Your account."""

    get: Final = awaited(_get)
