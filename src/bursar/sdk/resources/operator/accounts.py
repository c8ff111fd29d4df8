"""Every account: opening, suspending, credit and keys."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.account import AccountInfo
from bursar.sdk.resources.api_keys import NewApiKey, fields_of_new
from bursar.sdk.resources.billing import Transaction
from bursar.sdk.results import Result, Usd
from bursar.sdk.values import UNSET, Unset, UsdIn

_ACCOUNTS = "/v1/operator/accounts"


class Posting(Result):
    """A transaction that was just added, and the balance after it, in USD."""

    transaction: Transaction
    balance: Usd


def _list(*, page_size: int | None = None) -> Call[Page[AccountInfo]]:
    """Every account, oldest first."""
    read = results.read_page(AccountInfo, "accounts")
    return Call("GET", _ACCOUNTS, read, {"limit": page_size})


def _get(account_id: int) -> Call[AccountInfo]:
    """One account; raises NotFound."""
    return Call("GET", values.path(_ACCOUNTS, account_id), results.read(AccountInfo))


def _create(
    name: str,
    *,
    credit: UsdIn | None = None,
    time_zone: str | None = None,
    plan_id: int | None = None,
    currency: str | None = None,
    features: Mapping[str, bool | int | str] | None = None,
    idempotency_key: str | None = None,
) -> Call[AccountInfo]:
    """Open an account; `credit` is what it starts with, in USD.

    Its invoices are made out in `currency`; `features` are names and values.
    """
    body = values.some(
        name=name,
        credit=values.usd_text(credit),
        time_zone=time_zone,
        plan_id=plan_id,
        currency=currency,
        features=None if features is None else dict(features),
    )
    return _post(_ACCOUNTS, results.read(AccountInfo), body, idempotency_key)


def _update(
    account_id: int,
    *,
    name: str | Unset = UNSET,
    time_zone: str | Unset = UNSET,
    plan_id: int | Unset = UNSET,
    currency: str | Unset = UNSET,
    features: Mapping[str, bool | int | str | None] | Unset = UNSET,
) -> Call[AccountInfo]:
    """Change an account; what is not given stays.

    Of `features` those that are named are set, or taken away where the value is None.
    """
    sent = features if isinstance(features, Unset) else dict(features)
    body = values.given(
        name=name, time_zone=time_zone, plan_id=plan_id, currency=currency, features=sent
    )
    path = values.path(_ACCOUNTS, account_id)
    return Call("PATCH", path, results.read(AccountInfo), body=body)


def _suspend(account_id: int, *, idempotency_key: str | None = None) -> Call[AccountInfo]:
    """Stop an account's keys until it is resumed."""
    path = f"{values.path(_ACCOUNTS, account_id)}/suspend"
    return _post(path, results.read(AccountInfo), None, idempotency_key)


def _resume(account_id: int, *, idempotency_key: str | None = None) -> Call[AccountInfo]:
    """Let a suspended account's keys work again."""
    path = f"{values.path(_ACCOUNTS, account_id)}/resume"
    return _post(path, results.read(AccountInfo), None, idempotency_key)


def _cancel(account_id: int, *, idempotency_key: str | None = None) -> Call[AccountInfo]:
    """Stop an account's keys for good."""
    path = f"{values.path(_ACCOUNTS, account_id)}/cancel"
    return _post(path, results.read(AccountInfo), None, idempotency_key)


def _grant(
    account_id: int, *, amount: UsdIn, note: str = "", idempotency_key: str | None = None
) -> Call[Posting]:
    """Give an account credit, in USD, above 0."""
    path = f"{values.path(_ACCOUNTS, account_id)}/credit"
    body: dict[str, object] = {"amount": values.usd_text(amount), "note": note}
    return _post(path, results.read(Posting), body, idempotency_key)


def _correct(
    account_id: int, *, amount: UsdIn, reason: str, idempotency_key: str | None = None
) -> Call[Posting]:
    """Correct an account's credit, in USD, below 0 to take some; not what requests hold."""
    path = f"{values.path(_ACCOUNTS, account_id)}/corrections"
    body: dict[str, object] = {"amount": values.usd_text(amount), "reason": reason}
    return _post(path, results.read(Posting), body, idempotency_key)


def _create_key(
    account_id: int,
    *,
    name: str,
    kind: Literal["inference", "provisioning"] = "inference",
    credit_limit: UsdIn | None = None,
    expires_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[NewApiKey]:
    """Make a key of an account; its secret is in the answer's `key` and nowhere else."""
    body = fields_of_new(name, credit_limit=credit_limit, expires_at=expires_at) | {"kind": kind}
    path = f"{values.path(_ACCOUNTS, account_id)}/keys"
    return _post(path, results.read(NewApiKey), body, idempotency_key)


def _post(path: str, read: Any, body: dict[str, object] | None, key: str | None) -> Call[Any]:
    return Call("POST", path, read, body=body, is_kept=True, idempotency_key=key)


class Accounts(Resource):
    """Every account."""

    list: Final = sync_pages(_list)
    get: Final = sync(_get)
    create: Final = sync(_create)
    update: Final = sync(_update)
    suspend: Final = sync(_suspend)
    resume: Final = sync(_resume)
    cancel: Final = sync(_cancel)
    grant: Final = sync(_grant)
    correct: Final = sync(_correct)
    create_key: Final = sync(_create_key)


class AsyncAccounts(AsyncResource):
    """Every account."""

    list: Final = awaited_pages(_list)
    get: Final = awaited(_get)
    create: Final = awaited(_create)
    update: Final = awaited(_update)
    suspend: Final = awaited(_suspend)
    resume: Final = awaited(_resume)
    cancel: Final = awaited(_cancel)
    grant: Final = awaited(_grant)
    correct: Final = awaited(_correct)
    create_key: Final = awaited(_create_key)
